"""The planner, with an oracle whose every byte can be foretold and with llama.cpp itself."""
