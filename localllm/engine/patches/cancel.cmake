# Lets llama-server notice a client that left while others are being answered.
#
# Run by CMake inside llama.cpp's project() (CMAKE_PROJECT_llama.cpp_INCLUDE, from recipe.py).
#
# A request waits for its results in server_response::recv_with_timeout and looks whether its client
# is still there whenever that wait ends without one. The wait begins anew at every result of any
# request, so while one client streams, no other request's wait ever ends: its work goes on for
# nobody, until it is done. With a deadline for the whole wait it ends after a second, as it was
# meant to (llama.cpp 0c1e570, tools/server/server-queue.cpp).

set(path "${CMAKE_CURRENT_SOURCE_DIR}/tools/server/server-queue.cpp")
set(begin [=[server_task_result_ptr server_response::recv_with_timeout(const std::unordered_set<int> & id_tasks, int timeout) {
]=])
set(deadline [=[    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(timeout);
]=])
set(wait [=[condition_results.wait_for(lock, std::chrono::seconds(timeout))]=])
set(wait_until [=[condition_results.wait_until(lock, deadline)]=])

file(READ "${path}" text)
string(FIND "${text}" "${deadline}" patched)
if(patched EQUAL -1)
    string(REPLACE "${begin}" "${begin}${deadline}" text_begun "${text}")
    string(REPLACE "${wait}" "${wait_until}" text_done "${text_begun}")
    if(text_begun STREQUAL text OR text_done STREQUAL text_begun)
        message(FATAL_ERROR "cancel.cmake was written for another llama.cpp: ${path} differs")
    endif()
    file(WRITE "${path}" "${text_done}")
    message(STATUS "localllm: waits in tools/server/server-queue.cpp have a deadline")
endif()
