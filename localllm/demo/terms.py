"""The words of the field: GGUF, quantization, context, VRAM and their neighbours.

Data only, in the notation of intents.py. Numbers about quantizations are those that llama.cpp
publishes for Llama-3-8B.
"""
# ruff: noqa: E501 - one way of asking per line, however many words there are for it

from __future__ import annotations

from localllm.demo.intents import Intent

__all__ = ["TERMS"]

TERMS = (
    Intent(
        "gguf",
        en_term="GGUF|a GGUF|a GGUF file|GGUF files|the GGUF format|gguf|a .gguf file",
        en="""
        [which|what] [file format|format|file type|model format] [do you use|does it use|are models in|do models have]
        [where do I get|what can open|what do I do with|how do I open|how big is] [a GGUF file|GGUF files|GGUF|a .gguf file]
        [is|are] GGUF [a file format|a model|a program|files safe|files big|better than safetensors]
        """,
        zh_term="GGUF|GGUF 文件|GGUF 格式|gguf|gguf 文件",
        zh="""
        [模型|模型文件] [是什么格式|用什么格式|的格式是什么]
        [支持|使用] [什么|哪种] [文件格式|模型格式]
        [GGUF] [是文件格式吗|是模型吗|怎么打开|里面有什么|装了什么|和 safetensors 有什么区别|是哪来的|这种格式|文件里有什么]
        """,
        en_answers=(
            "GGUF is llama.cpp's file format: one file with the weights, the vocabulary and "
            "everything needed to run the model.",
        ),
        zh_answers=(
            "GGUF 是 llama.cpp 的文件格式：一个文件里装着权重、词表和运行模型所需的一切。",
        ),
    ),
    Intent(
        "llamacpp",
        en_term="llama.cpp|llama cpp|llamacpp|llama-server|ggml",
        en="""
        [who wrote|who made|what runs under the hood of|what is behind|what powers] [llama.cpp|localllm|it]
        [does|is] [localllm|it|this] [use|using|based on|built on top of|a wrapper around|running on] [llama.cpp|llama cpp|ggml|llama-server]
        [what|which] [engine|library|software|backend] does [localllm|it] [use|run on|build on|rely on]
        """,
        zh_term="llama.cpp|llama cpp|llama-server|ggml|llamacpp",
        zh="""
        [localllm 的底层是什么|背后用的是什么|底层用什么|localllm 基于什么|底层是 llama.cpp 吗]
        [localllm|它] [用了 llama.cpp 吗|是基于 llama.cpp 的吗|和 llama.cpp 什么关系|跟 llama.cpp 的关系|底层是什么|依赖什么]
        [llama.cpp] [是哪来的|是谁写的|是什么软件|是干嘛用的|快吗|是开源的吗|和 localllm 有什么关系]
        """,
        en_answers=(
            "llama.cpp is an open source C++ engine that runs language models fast on CPUs and "
            "GPUs. localllm builds on it, and llama-server is its server.",
        ),
        zh_answers=(
            "llama.cpp 是开源的 C++ 引擎，能在 CPU 和 GPU 上快速运行语言模型。localllm 以它为基础，llama-server 是它的服务器。",
        ),
    ),
    Intent(
        "llm",
        en_term="a language model|an LLM|a large language model|LLM|language models|LLMs|a chat model",
        en="""
        how [does a language model|do language models|does an LLM|do LLMs] work
        [how would you|can you|please] [describe|define|explain] [a language model|an LLM|a large language model|LLMs|language models] [|to a child|simply|in simple terms]
        [what|how] [can a language model do|do LLMs do|does an LLM do|is an LLM made|do language models learn|does a language model learn]
        """,
        zh_term="语言模型|大语言模型|LLM|大模型|聊天模型",
        zh="""
        [语言模型|大模型|LLM] [怎么工作|是怎么工作的|的原理是什么|如何工作]
        [大模型|语言模型|LLM|大语言模型] [能做什么|会思考吗|怎么训练|是怎么来的|怎么学习|怎么说话|怎么回答问题|全称是什么|是啥意思]
        """,
        en_answers=(
            "A language model is a program that continues a text, one token at a time. Trained on "
            "enough text, it can answer questions.",
        ),
        zh_answers=(
            "语言模型是一个接一个地续写 token 的程序。用足够多的文本训练后，它就能回答问题。",
        ),
    ),
    Intent(
        "parameters",
        en_term="7B|8B|70B|parameters|a parameter|weights|a weight|the B in 8B|13B|the number of parameters",
        en="""
        what does [the B|7B|8B|the 8b|70B] [mean|stand for] [|in a model name]
        [how many|what number of] [parameters|weights] [does a model have|are good|do models have|do I need|are in an 8B model]
        [is|are] [more parameters|a bigger model|70B|8B|a larger number of parameters] [better|smarter|always better|much better|better than 7B|good]
        [what|which] [is the difference between|differs between] [7B and 70B|8B and 70B|a 7B and a 13B model]
        [what's|what is] the [7B|8B|70B|13B|number|B] [that appears in model names|in model names|in the name of the model|after the name|behind the model name|in qwen3:8b]
        """,
        zh_term="参数量|权重|7B|8B|70B|模型参数|模型名里的 B|参数",
        zh="""
        [8B|7B|70B] [里的 B|中的 B] [是什么意思|代表什么|是什么]
        [参数|参数量|7B|8B|70B] [越多越好吗|越大越好吗|有多少|是多大|表示多少参数|越多越聪明吗|和 70B 有什么区别|代表的是什么|是多少亿]
        [模型后面的|名字里的|模型名后面的] [7B|8B|70B|B|数字] [是什么|什么意思|代表什么|指什么|是啥]
        """,
        en_answers=(
            "Parameters, or weights, are the numbers a model has learned; 8B means 8 billion of "
            "them. More are smarter, but need more memory and time.",
        ),
        zh_answers=(
            "参数（权重）是模型学到的数字；8B 就是 80 亿个。越多越聪明，但需要更多内存和时间。",
        ),
    ),
    Intent(
        "quantization",
        en_term="quantization|quantisation|a quant|quants|a quantized model|quantizing|quantized models",
        en="""
        [why are|how are|why do people use] [models quantized|quantized models|quants]
        [does quantization|do quants|will quantization] [lose|reduce|hurt|cost] [quality|accuracy|the quality]
        [what|which] [happens in quantization|does quantizing do|does quantization change|is the effect of quantization|is lost by quantization|is the trick of quantization]
        [is|are] [a quantized model|quantized models|quants] [worse|smaller|faster|good|as good|less accurate|dumber]
        """,
        zh_term="量化|模型量化|量化模型|quantization|quant",
        zh="""
        [量化会|量化后会] [损失质量吗|降低质量吗|变笨吗|影响效果吗|变差吗]
        [为什么要量化|模型为什么要量化|量化有什么好处]
        [量化] [有坏处吗|会怎样|做了什么|以后会怎样|有什么影响|的过程|会变差吗|有啥用|对模型有什么影响|有必要吗]
        [量化后的模型|量化的模型|量化过的模型] [好吗|差吗|更小吗|更快吗|有什么不同|会变笨吗|质量怎么样]
        模型 [被量化之后|量化之后|经过量化|量化以后] [会怎样|有什么变化|会变差吗|质量会下降吗|会变小吗|会怎么样]
        """,
        en_answers=(
            "Quantization stores each weight in fewer bits, so a model gets smaller and faster and "
            "loses a little quality.",
        ),
        zh_answers=("量化就是用更少的位数存储每个权重，模型因此更小更快，质量略有损失。",),
        en_more="At Q4_K_M a weight takes about 4.9 bits instead of 16, so the file shrinks to less "
        "than a third.",
        zh_more="Q4_K_M 的每个权重约占 4.9 位而不是 16 位，文件缩小到不足三分之一。",
    ),
    Intent(
        "which_quant",
        en="""
        [which|what] [quantization|quantisation|quant] [should I use|should I choose|is best|is the best|do you recommend|to use|should I take|is good|to pick]
        {how} [choose|pick|select] [a quantization|the quantization|the right quant|a quant|between quants|between quantizations]
        [what is the best|recommend a|suggest a|what's a good|give me a good] [quantization|quant|default quantization]
        [should I use|is it better to use|do I take] [Q4 or Q8|Q4_K_M or Q8_0|Q5 or Q4|Q4_K_M or Q6_K|a small or a large quant]
        [best quant|which quant|recommended quantization|good quantization]
        [I need|I want|give me|I'd like] [advice on quants|a good quant|a recommendation for the quantization|help with the quantization|the right quantization|a sensible quant|advice on quantization]
        [what|which] [quant would you take|quant fits me|quant is right|level of quantization|one of the quants|quant do people use|quantization do most people use|quant gives the best quality|file should I download]
        [there are so many quants|so many quantizations|too many quants|all these quants] [|, which one|, what do I take|confuse me|, help]
        [I can't decide|not sure|I am unsure|no idea] [which quant|which quantization|between Q4 and Q8|what quantization to use|about the quant]
        """,
        zh="""
        [该用|应该用|选|用|推荐|应该选|该选|选择] [哪个|什么|哪种] 量化 [|好|版本|级别]
        [哪个|哪种|什么] 量化 [好|最好|比较好|最合适|推荐|值得用]
        {怎么} [选量化|选择量化|挑量化|选择量化版本]
        [推荐|建议] [一个量化|什么量化|哪种量化]
        [Q4 还是 Q8 好|选 Q4_K_M 还是 Q8_0|用 Q4 还是 Q6|Q5 和 Q4 选哪个|Q4 和 Q8 选哪个]
        [我该|我应该|我|新手] [下哪个量化|选什么量化|用哪种量化|选哪个量化版本|下载哪种量化|用什么量化]
        [这么多量化|量化版本太多|这么多版本|那么多量化] [选哪个|，我该选哪个|怎么选|，用哪个|选哪个好]
        [不知道|不确定|拿不准] [用哪个量化|选什么量化|下哪个量化|量化怎么选|哪种量化好]
        [默认|一般|通常|大家] [用什么量化|用哪个量化|选哪种量化|都用什么量化|推荐什么量化]
        """,
        en_answers=(
            "Q4_K_M is a good default. Take Q6_K or Q8_0 if they fit, and Q2_K only when nothing "
            "else does. localllm plan chooses for you.",
        ),
        zh_answers=(
            "Q4_K_M 是不错的默认选择。放得下就用 Q6_K 或 Q8_0，实在不行才用 Q2_K。localllm plan 会替你选。",
        ),
    ),
    Intent(
        "q4",
        en_term="Q4_K_M|Q4_K|Q4_K_S|Q4|Q4_0|a Q4_K_M file|q4_k_m|Q5_K_M|Q5",
        en="""
        [is|how good is|is it ok to use] [Q4_K_M|Q4|Q4_K] [good|good enough|ok|]
        [would you recommend|can I use|is it fine to take|I downloaded|I have a|my file is] [Q4_K_M|Q4|a Q4_K_M|Q4_K_S|Q5_K_M]
        [how many bits|how big|how large|how much worse|how precise] [is|are|has|does] [Q4_K_M|Q4|Q4_K|a Q4_K_M model|Q5_K_M] [|have]
        """,
        zh_term="Q4_K_M|Q4_K|Q4|Q4_0|q4_k_m|Q5_K_M|Q4_K_S",
        zh="""
        [Q4_K_M|Q4|Q4_K] [好吗|怎么样|够用吗|质量如何|质量好吗]
        [我下载的是|我用的是|文件名里有|我的是] [Q4_K_M|Q4|Q4_K_S|Q5_K_M] [|，好吗|，是什么|，怎么样]
        [Q4_K_M|Q4|Q5_K_M] [有多少位|损失大吗|大小怎么样|够好吗|行吗|可以用吗|推荐吗|精度如何|是几位]
        """,
        en_answers=(
            "Q4_K_M is a quantization with about 4.9 bits per weight: a third of the size of F16 "
            "with little loss. It is the usual default.",
        ),
        zh_answers=(
            "Q4_K_M 是每个权重约 4.9 位的量化：大小是 F16 的三分之一，损失很小，是常用的默认选择。",
        ),
    ),
    Intent(
        "q8",
        en_term="Q8_0|Q6_K|Q8|Q6|q8_0|q6_k|a Q8_0 file",
        en="""
        [is|how good is] [Q8_0|Q6_K|Q8|Q6] [good|lossless|worth it|]
        [would you recommend|can I use|should I use|should I take|I have a|my file is] [Q8_0|Q6_K|Q8|Q6]
        [how many bits|how big|how large|how precise|how much better] [is|are|has|does] [Q8_0|Q6_K|Q8|Q6] [|have]
        [is there|do I notice] [a loss with|any loss in|a difference with] [Q8_0|Q6_K|Q8|Q6]
        [the difference between|difference between] [Q8_0 and F16|Q6_K and Q8_0|Q8 and the original]
        """,
        zh_term="Q8_0|Q6_K|Q8|Q6|q8_0|q6_k",
        zh="""
        [Q8_0|Q6_K|Q8|Q6] [好吗|怎么样|是无损的吗|质量如何|值得吗]
        [我下载的是|我用的是|我的是] [Q8_0|Q6_K|Q8|Q6] [|，好吗|，是什么|，怎么样]
        [Q8_0|Q6_K|Q8|Q6] [有多少位|损失大吗|有损失吗|够好吗|行吗|可以用吗|推荐吗|精度高吗|接近无损吗|是几位]
        [Q8_0 和 F16|Q6_K 和 Q8_0|Q8 和原版] [差多少|有区别吗|的区别]
        """,
        en_answers=(
            "Q6_K and Q8_0 are nearly lossless: about 6.6 and 8.5 bits per weight. Use them when "
            "you have the memory.",
        ),
        zh_answers=("Q6_K 和 Q8_0 几乎无损：每个权重约 6.6 位和 8.5 位。内存够就用它们。",),
    ),
    Intent(
        "q2",
        en_term="Q2_K|Q3_K_M|Q2|Q3|Q3_K_S|q2_k|a Q2_K file|IQ2",
        en="""
        [is|how good is|how bad is|should I use] [Q2_K|Q2|Q3_K_M|Q3] [good|bad|usable|]
        what is the smallest [quantization|quant]
        [would you recommend|can I use|is it fine to take|I have a|I downloaded|my file is] [Q2_K|Q2|a Q2_K|Q3_K_M|Q3|IQ2]
        [how many bits|how small|how much worse|how lossy|how much quality is lost with] [is|are|has|does|] [Q2_K|Q2|Q3_K_M|Q3] [|have|lose]
        [does|do|will] [Q2_K|Q2|Q3_K_M|very small quants|tiny quants] [hurt|lose quality|get stupid|work|give bad answers]
        """,
        zh_term="Q2_K|Q3_K_M|Q2|Q3|q2_k|Q3_K_S",
        zh="""
        [Q2_K|Q2|Q3_K_M|Q3] [好吗|怎么样|能用吗|质量如何|很差吗]
        [最小的量化是什么|最小的量化是哪个]
        [我下载的是|我用的是|我的是] [Q2_K|Q2|Q3_K_M|Q3] [|，好吗|，是什么|，怎么样]
        [Q2_K|Q2|Q3_K_M|Q3] [损失大吗|差多少|会变笨吗|够用吗|行吗|推荐吗|精度如何|是几位|能将就吗|很糟吗]
        [很小的量化|太小的量化|最低的量化] [好吗|会变笨吗|能用吗|怎么样]
        """,
        en_answers=(
            "Q2_K and Q3_K are small but lossy: about 3 to 4 bits per weight and clearly worse "
            "answers. Use them only when nothing larger fits.",
        ),
        zh_answers=(
            "Q2_K 和 Q3_K 很小但损失明显：每个权重约 3 到 4 位，回答质量差一截。只有更大的放不下时才用。",
        ),
    ),
    Intent(
        "ngl",
        en_term="n_gpu_layers|GPU layers|ngl|-ngl|offloading|layer offload|gpu offload|n-gpu-layers",
        en="""
        how many [GPU layers|layers] [should I|can I|do I] [use|offload|put on the GPU]
        {how} [put|offload|move] [layers|the model|more layers] [to|on|onto] the GPU
        {how} [set|choose|change] [n_gpu_layers|the GPU layers|ngl|the number of GPU layers]
        [what|which] [value|number] [should n_gpu_layers have|for n_gpu_layers|of GPU layers is best|do I give n_gpu_layers|is good for ngl]
        [can|could|should] [all layers|some layers|the whole model|half of the layers|every layer] [be on the GPU|go to the GPU|fit on the GPU|be offloaded|run on the GPU]
        """,
        zh_term="n_gpu_layers|GPU 层数|ngl|GPU 层|层卸载",
        zh="""
        [多少层|几层|要把多少层] [放到 GPU 上|放在显卡上|放进显存]
        {怎么} [设置 n_gpu_layers|把层放到 GPU|设置 GPU 层数|把模型放到显卡上]
        [n_gpu_layers|ngl|GPU 层数] [设多少|该设多少|设成几|填多少|怎么设|设置成什么|设为多少合适]
        [所有层|全部层|一部分层|整个模型|一半的层] [都放到 GPU|能放到显卡吗|放 GPU 上|可以放进显存吗]
        """,
        en_answers=(
            "n_gpu_layers is how many layers of the model are placed on the GPU; the rest stays on "
            "the CPU. localllm chooses it for you.",
        ),
        zh_answers=("n_gpu_layers 是放到 GPU 上的模型层数，其余留在 CPU。localllm 会替你选好。",),
    ),
    Intent(
        "vram",
        en_term="VRAM|video memory|GPU memory|graphics memory|vram",
        en="""
        [what is the difference between|difference between] [RAM and VRAM|VRAM and RAM|memory and VRAM]
        [how is|is] [VRAM|GPU memory|video memory] [different from RAM|the same as RAM|faster than RAM|like normal memory|important]
        [how do|how does] [VRAM and RAM|RAM and VRAM] [differ|compare]
        """,
        zh_term="显存|VRAM|GPU 内存|显卡内存",
        zh="""
        [显存和内存|内存和显存|VRAM 和内存] [有什么区别|的区别是什么|有什么不同|一样吗]
        [显存|VRAM] [为什么重要|比内存快吗|就是内存吗|是内存吗|大有什么好处|跟内存不一样吗|决定什么]
        [显存和内存|内存和显存] [差在哪|不同在哪|是一回事吗|哪个重要]
        """,
        en_answers=(
            "VRAM is the memory of the graphics card. Layers that fit in it run fast; the rest runs "
            "from main memory on the CPU.",
        ),
        zh_answers=(
            "显存（VRAM）是显卡上的内存。放得进显存的层跑得快，其余的在 CPU 上用主内存运行。",
        ),
    ),
    Intent(
        "context",
        en_term="the context|context|a context|n_ctx|the context window|context length|context size|the context size",
        en="""
        how [long|big|large] [can|should|is|may] [the context|a conversation|the context window|my text] [be|]
        {how} [set|change|increase|choose|enlarge|make longer] [the context|the context size|n_ctx|the context length]
        [why does it forget|why did you forget|it forgets|it forgot] [what I said|the beginning|earlier messages]
        how [many tokens|much text] can [it|the model|a model] [remember|read|keep in mind]
        [how much|how many words|how many tokens|how many messages] [can you remember|can the model remember|fit in the context|can it see|can it keep|can I write]
        [I want|I need|I'd like] [a longer context|a bigger context|more context|a larger context window|to change the context]
        [does|will|can] [the model|it] [remember everything|forget things|remember a long chat|read a whole book|handle long texts|keep long conversations in mind]
        [can|does|will|could] [the model|it|you] [remember|keep|follow|handle] [a long conversation|a very long chat|a long text|long conversations|everything I said|a whole book]
        [how long|how much] [can|will|does] [the model|it] [remember|keep|remember a conversation|look back]
        """,
        zh_term="上下文|上下文窗口|n_ctx|上下文长度|context|上下文大小",
        zh="""
        [上下文|对话|上下文窗口] [能有多长|可以多长|有多大|应该多大|最长多少]
        {怎么} [设置上下文|改上下文大小|增大上下文|设置 n_ctx|加长上下文|调整上下文长度]
        [为什么忘记了前面的话|为什么会忘记我说的|能记住多少内容|模型能读多少字|它忘了前面说的]
        [我想|我要|想] [更长的上下文|加大上下文|改上下文|让它记住更多|设置上下文长度]
        [模型|它] [能记多少|会忘记吗|能记住多长|能读完一本书吗|能处理长文本吗|能看多少字|可以记住长对话吗]
        [对话|聊天] [太长会怎样|太长了会忘吗|最多多长|长了怎么办]
        """,
        en_answers=(
            "The context, n_ctx, is how many tokens the model can see at once: your messages and "
            "its answers. A longer one needs more memory.",
        ),
        zh_answers=(
            "上下文（n_ctx）是模型一次能看到的 token 数：包括你的话和它的回答。越长越占内存。",
        ),
    ),
    Intent(
        "kv",
        en_term="the KV cache|KV cache|a KV cache|kv-cache|the KV type|type_k|the key value cache",
        en="""
        {how} [shrink|reduce|quantize|make smaller] the KV cache
        [what is stored in|what's inside|how big is|how large is|how much memory does|what uses] [the KV cache|the kv cache|a KV cache] [|need|take]
        """,
        zh_term="KV 缓存|KV cache|kv 缓存|键值缓存|KV",
        zh="""
        {怎么} [减小 KV 缓存|量化 KV 缓存|缩小 KV 缓存]
        [KV 缓存|KV cache] [有多大|占多少内存|保存什么|的大小|里有什么|能量化吗|为什么占内存|存什么|起什么作用]
        """,
        en_answers=(
            "The KV cache holds what the model has already read, so it need not compute it again. "
            "It grows with the context and can be quantized to save memory.",
        ),
        zh_answers=(
            "KV 缓存保存模型已经读过的内容，不必重新计算。它随上下文增长，可以量化来节省内存。",
        ),
    ),
    Intent(
        "flash",
        en_term="flash attention|flash-attn|flash_attn|FA|fa",
        en="""
        {how} [enable|turn on|use|disable] flash attention
        [do I need|should I use|is it good to use|what do I gain from|is there a benefit of|shall I enable] [flash attention|flash_attn|flash-attn]
        [is|does] flash attention [faster|save memory|on by default|useful|enabled|worth it]
        """,
        zh_term="flash attention|flash-attn|闪存注意力|快速注意力",
        zh="""
        {怎么} [开启 flash attention|打开 flash attention|使用 flash attention]
        [flash attention] [快吗|省内存吗|默认开吗|值得开吗|开了吗|要开吗|需要吗|能提速吗|是什么技术]
        [该不该|需要|是否] [开 flash attention|用 flash attention|启用 flash attention]
        """,
        en_answers=(
            "Flash attention computes attention in small blocks, which saves memory and often time. "
            "localllm leaves it on auto.",
        ),
        zh_answers=(
            "flash attention 把注意力分小块计算，省内存，往往也更快。localllm 让它自动开关。",
        ),
    ),
    Intent(
        "threads",
        en_term="threads|n_threads|the number of threads|thread count|CPU threads",
        en="""
        how many [threads|cores|CPU threads|CPU cores] [should I use|are best|does it use|do I need|should I set]
        {how} [set|choose|change] [the threads|the number of threads|n_threads|how many cores are used]
        [are|is] [more threads|all cores|8 threads|4 threads|hyper-threading|one thread per core] [better|faster|good|best|useful|right]
        [what|which] [number of threads|thread count|value for threads] [should I use|is right|is fastest|should I choose|do you recommend]
        [does it|will it|can it] [use all cores|use all my cores|use every core|choose the threads|use several cores|use multiple cores]
        """,
        zh_term="线程|线程数|n_threads|CPU 线程",
        zh="""
        [用|该用|应该用|设置|需要] [多少|几个] [线程|核|核心]
        {怎么} [设置线程数|改线程数|选择线程数|调线程]
        [线程|线程数] [越多越快吗|越多越好吗|多好还是少好|该是多少|怎么定|选多少|要等于核数吗|最佳是多少]
        [会|能|会不会] [用所有核心吗|用全部核吗|用多核吗|自动选线程吗|用满 CPU 吗]
        """,
        en_answers=(
            "Threads are the CPU workers. Best is one per physical core that you may really use; "
            "localllm respects container limits and chooses for you.",
        ),
        zh_answers=(
            "线程是 CPU 的工作者。最好每个真正可用的物理核心一个；localllm 会遵守容器限制并替你选好。",
        ),
    ),
    Intent(
        "token",
        en_term="a token|tokens|token|tokenization|a tokenizer|the tokenizer|tokenizers",
        en="""
        how [long|big|many letters] is a token
        [what counts as|what do you call|how would you define|give me an example of] [a token|one token|tokens]
        [is|are] [a token|tokens] [a word|words|letters|the same as words|syllables|characters]
        [how many|how much] [tokens are in a word|words is a token|letters has a token|tokens are in a sentence|characters are in a token]
        """,
        zh_term="token|令牌|分词|分词器|词元|tokenizer",
        zh="""
        [一个 token|token] [有多长|是几个字|等于几个字]
        [一个 token|token|词元] [就是一个字吗|是一个词吗|是单词吗|相当于几个字|怎么算|怎么计算|是多少字|到底算什么|算几个字]
        [一句话|一个字|一个汉字] [是几个 token|等于几个 token|有多少 token]
        """,
        en_answers=(
            "A token is a piece of text, a short word or a part of one. Models read and write "
            "tokens.",
        ),
        zh_answers=("token 是一小段文字：一个短词或词的一部分。模型读写的就是 token。",),
    ),
    Intent(
        "tps",
        en_term="tokens per second|tok/s|t/s|token speed|tokens/s|generation speed",
        en="""
        how many tokens per second [are good|is good|is normal|do I need|is fast|do I get]
        what [limits|determines|decides] [the speed|speed|the generation speed|tokens per second]
        [is|are] [5|10|20|30|50|100] [tokens per second|tok/s|t/s] [good|fast|ok|slow|enough|normal]
        [what|which] [is a good speed|speed is good|number of tokens per second is good|speed is comfortable|rate is normal]
        [I get|I have|I see|it shows] [5|10|20|30|50] [tokens per second|tok/s|t/s] [|, is that good|, is that ok]
        """,
        zh_term="每秒 token 数|tok/s|tokens per second|生成速度|每秒多少 token",
        zh="""
        [每秒多少 token|多少 tok/s] [算快|正常|够用|算好|合适]
        [速度由什么决定|什么决定速度|速度取决于什么]
        [每秒] [5|10|20|30|50|几|多少] [个 token|token|个字] [快吗|算快吗|正常吗|够吗|好吗|慢吗|算慢吗]
        [我有|我得到|显示] [10|20|30] tok/s [|，快吗|，正常吗|，好吗]
        [什么速度|多快|多少 tok/s] [算好|算快|才舒服|够用|是正常的]
        """,
        en_answers=(
            "Tokens per second is the speed of writing. Ten are comfortable to read; memory "
            "bandwidth is what mostly limits it.",
        ),
        zh_answers=("每秒 token 数就是生成的速度。每秒十个读起来就很舒服；主要受内存带宽限制。",),
    ),
    Intent(
        "ttft",
        en_term="TTFT|time to first token|ttft|the time to first token|first token latency",
        en="""
        why does [it|the first word|the first token|the first answer] [take so long to start|take so long|wait before it starts|start so late]
        [how long|why] [do I wait for the first word|until the first word|does the first token take|until it starts|is the start so slow|before the answer begins|is there a delay before the answer]
        [what is|what's|explain] [the delay before the answer|the waiting time at the start|the start delay|that TTFT value|TTFT in the statistics]
        """,
        zh_term="TTFT|首字延迟|首个 token 的时间|首 token 延迟|ttft",
        zh="""
        [为什么第一个字要等很久|第一个字为什么这么慢|开始回答前为什么要等|第一个字出来得很慢]
        [开始回答前|第一个字|第一个 token|回答开始前] [要等多久|等很久|的等待时间|的延迟|为什么要等|为什么慢]
        [统计里的|显示的] [TTFT|首字延迟] [是什么|指什么|什么意思]
        """,
        en_answers=(
            "TTFT is the time to the first token: how long you wait before the answer starts. It "
            "grows with the length of the prompt.",
        ),
        zh_answers=("TTFT 是首个 token 的时间：回答开始前要等多久。提示越长，等得越久。",),
    ),
    Intent(
        "streaming",
        en_term="streaming|a stream|SSE|token streaming|stream mode",
        en="""
        [can it|does it|does the server|can the server|does localllm] [stream|support streaming|stream answers|stream tokens]
        {how} [stream|enable streaming|get a stream|turn on streaming]
        [can I|do I|will I] [see the answer word by word|see tokens as they come|get the answer bit by bit|watch it write|see it while it writes|get partial answers|stream the reply]
        [does|will] [the answer|the reply|the text] [come word by word|appear at once|come bit by bit|appear gradually|stream]
        [stream|streaming] [the answers|mode|true|responses|over HTTP|in the API|option]
        [can|could|do|will] I [see|read|watch|get] [the answer|it|the reply|the text|the words|tokens] while it is [being written|being made|being generated|writing|generating|still working]
        """,
        zh_term="流式输出|流式|streaming|SSE|流式传输",
        zh="""
        [支持|能|可以] [流式输出|流式|流式返回] 吗
        {怎么} [流式输出|打开流式|使用流式]
        [可以|能|能不能] [一个字一个字显示吗|边写边看吗|逐字输出吗|实时显示吗|逐步显示吗|边出边看吗|一边生成一边看吗]
        [回答|输出] [是逐字的吗|会逐字出现吗|是一次性出来吗|能流式吗|是实时的吗]
        [stream 参数|流式模式|逐字输出|流式接口|stream] [怎么用|怎么开|怎么设置|是什么|在哪设置]
        [能不能|可以|能] [边生成边显示|边生成边看|一边写一边显示|写一点显示一点|即时显示|马上看到输出]
        """,
        en_answers=(
            "Streaming means that you see each token as soon as it is made. chat always streams; "
            'in the API set "stream": true.',
        ),
        zh_answers=(
            '流式输出就是每个 token 一生成就显示。chat 总是流式的；API 里设置 "stream": true。',
        ),
    ),
    Intent(
        "system",
        en_term="a system prompt|the system prompt|system prompts|a system message|system prompt|--system",
        en="""
        {how} [set|change|give|use|write|add] [a system prompt|the system prompt|a system message|instructions for the model]
        {how} [tell|make] the model [how to behave|to behave differently|to play a role|act as someone]
        [I want|I'd like|can I|how do I get] [the model to behave differently|the model to be a teacher|to give it a role|to change its behaviour|the model to answer briefly|to give it instructions|it to speak like a pirate|to set its role]
        [where|how] [do I write|can I put|do I enter|do I give] [the system prompt|system instructions|a role for the model|the instructions|a system message]
        [is there|do you have] [a system prompt|a way to give the model a role|an option for the system prompt]
        [how do I|how can I|can I|I want to] make [the model|it|a model|qwen] [act like a teacher|act like a doctor|behave politely|talk like a pirate|answer in one sentence|follow my rules|play a role|be funny]
        """,
        zh_term="系统提示|系统提示词|system prompt|系统消息|--system",
        zh="""
        {怎么} [设置系统提示|改系统提示|使用系统提示词|写系统提示|设定角色|让模型扮演角色|加系统提示]
        [我想|我要|想|怎么] [让它当老师|给它一个角色|让它简短回答|改变它的性格|让模型听我的要求|设定它的身份|规定它怎么回答|给模型下指令]
        [系统提示|角色|身份|人设] [在哪里设置|写在哪|怎么加|怎么写|怎么改|可以设置吗|能改吗]
        [怎么|如何|怎样] 让 [模型|它] [按我的要求说话|按我的要求回答|听我的指令|像老师一样说话|遵守规则|说话更礼貌|一直用某种语气]
        """,
        en_answers=(
            "A system prompt tells the model how to behave. Set it with --system TEXT, or type "
            "/system TEXT in the chat.",
        ),
        zh_answers=(
            "系统提示告诉模型该怎样表现。用 --system 文本 设置，或在聊天里输入 /system 文本。",
        ),
    ),
    Intent(
        "temperature",
        en_term="temperature|the temperature|temp|top_p|sampling|top_k|a seed|sampling parameters|top-p|min_p",
        en="""
        {how} [set|change|lower|raise] [the temperature|temperature|top_p|sampling|the sampling settings|the seed]
        {how} make answers [less random|more creative|always the same|deterministic|reproducible]
        [the answers|answers|replies|the output] [are too random|are always the same|vary too much|are different every time|are boring|should be more creative|should be the same each time]
        [what|which] [value of temperature|temperature is best|temperature do you recommend|sampling settings are good|value for temperature|top_p should I use|temperature is good for code]
        [I want|I need|I'd like] [a lower temperature|less randomness|more creativity|reproducible answers|to change the sampling|the same answer every time|a higher temperature]
        """,
        zh_term="温度|temperature|top_p|采样|采样参数|温度参数|top_k|随机种子",
        zh="""
        {怎么} [设置温度|改温度|调温度|调整采样|降低随机性|让回答更有创意|调整 top_p|让回答固定]
        [回答|输出|每次回答] [太随机|都不一样|总是一样|太死板|不稳定|不够有创意|变来变去] [|怎么办|，怎么调]
        [温度|temperature|top_p] [多少好|该设多少|设成多少|多少合适|调多少|高好还是低好|怎么调|越高越好吗]
        [我想|我要|想] [让回答固定|降低温度|更有创意|减少随机|调整采样|每次回答一样|提高温度]
        """,
        en_answers=(
            "Temperature sets how random the answers are: 0 always takes the likeliest token, 1 is "
            "lively. In the chat type /set temperature 0.7.",
        ),
        zh_answers=(
            "温度决定回答的随机程度：0 总选最可能的 token，1 比较活泼。在聊天里输入 /set temperature 0.7。",
        ),
    ),
    Intent(
        "template",
        en_term="a chat template|the chat template|chat templates|chat template|ChatML|a prompt template",
        en="""
        {how} [change|use|set] [the chat template|a chat template|another chat template]
        [what is|what's] the [job|task|function|role|meaning] of [a chat template|the chat template|chat templates|the template]
        [does|do|must] [a model|every model|models|my model] [need|have|contain|use] [a chat template|chat templates|the right chat template]
        [where is|where does] the chat template [stored|come from|kept|saved|defined]
        """,
        zh_term="聊天模板|对话模板|chat template|ChatML|提示模板",
        zh="""
        {怎么} [修改聊天模板|使用聊天模板|换聊天模板]
        [聊天模板|对话模板] [存在哪里|在哪|从哪来|是干什么的|是必须的吗|有用吗|怎么来的|要设置吗|起什么作用呢]
        [每个模型|模型] [都有聊天模板吗|需要聊天模板吗|为什么需要模板|的模板在哪]
        """,
        en_answers=(
            "A chat template turns the messages of a conversation into the one text that the model "
            "was trained on. It is stored in the GGUF file.",
        ),
        zh_answers=(
            "聊天模板把对话里的各条消息变成模型训练时见过的那种文本。它就存在 GGUF 文件里。",
        ),
    ),
    Intent(
        "prompt",
        en_term="a prompt|the prompt|prompts|prompt",
        en="""
        {how} write a [good prompt|prompt|better prompt]
        [what makes|what is|tips for] [a good prompt|good prompts|writing prompts|better prompts|prompting]
        [how long|how detailed] [should|can|may] [a prompt|my prompt|prompts] be
        """,
        zh_term="提示词|prompt|提示",
        zh="""
        {怎么} [写提示词|写好提示词|写 prompt]
        [好的提示词|提示词|prompt] [怎么写|应该怎么写|有什么技巧|要多长|该怎么写|写法|要注意什么]
        """,
        en_answers=(
            "A prompt is the text that you give to the model. Be clear and say what you want.",
        ),
        zh_answers=("提示词就是你给模型的文字。说清楚你想要什么就好。",),
    ),
    Intent(
        "embedding",
        en_term="embeddings|an embedding|embedding|a text embedding|vector embeddings",
        en="""
        {how} [get|make|compute] [embeddings|an embedding|text embeddings]
        [can it|does it|can the server|does the server] [make embeddings|compute vectors|do embeddings|give embeddings|turn text into vectors|create vectors]
        [vectors|text vectors|vector of a text|text to vector|semantic search|similarity of texts]
        """,
        zh_term="嵌入|向量|embedding|文本向量|嵌入向量",
        zh="""
        {怎么} [得到向量|计算嵌入|生成 embedding|获取文本向量]
        [能|可以|支持] [做嵌入吗|算向量吗|生成向量吗|做语义搜索吗|把文本变成向量吗|输出向量吗|做 embedding 吗]
        [文本|句子] [怎么变成向量|转成向量|的向量|变向量|相似度怎么算]
        """,
        en_answers=(
            "An embedding turns a text into a list of numbers, so that texts of similar meaning are "
            "close. The server has an embeddings endpoint for it.",
        ),
        zh_answers=("嵌入把文本变成一串数字，意思相近的文本就离得近。服务器有 embeddings 接口。",),
    ),
)
