"""Using localllm: its commands, installing, models, memory, trouble.

Data only, in the notation of intents.py. Every answer must be true of this repository: when a
command changes, change the sentence here and train the demo model again.
"""
# ruff: noqa: E501 - one way of asking per line, however many words there are for it

from __future__ import annotations

from localllm.demo.intents import Intent

__all__ = ["USAGE"]

USAGE = (
    Intent(
        "localllm",
        en="""
        [what|so what|and what] is localllm [|exactly|for|about|used for|good for|all about|anyway]
        {what} [localllm|this program|this tool|this software|local llm|this project|this thing]
        what does [localllm|this program|this tool|this software|it] do
        [what is|what's] the [purpose|point|goal|idea] of [localllm|this program|this tool|this project]
        [I never heard of|I have never heard of|I don't know|never heard of] [localllm|this program]
        [what kind of|what sort of] [program|tool|software|thing] is [localllm|this|it]
        [localllm|introduce localllm|localllm in a nutshell|sum up localllm|summary of localllm]
        [give me|I want|I need] [a short description|an overview|a summary|an introduction|a quick introduction] [of|to] [localllm|this program|this tool]
        [localllm], [what is it|what is that|what does it do|what's that|what for]
        [in one sentence|briefly|in a few words|shortly], [what is localllm|what does localllm do|explain localllm|describe localllm]
        [I just heard of|someone told me about|I saw|I found] localllm [|, what is it|, what does it do]
        what [happens when I run|can I do with|is the job of|will I get from|is the function of] [localllm|this program|this tool]
        """,
        zh="""
        [localllm|这个程序|这个软件|这个工具|这个项目] [是什么|是干什么的|是做什么的|有什么用|能做什么|是啥|干嘛用的]
        [什么是|介绍一下|介绍|讲讲|说说|解释一下|讲一下|简单介绍|聊聊] [localllm|这个程序|这个软件|这个工具|这个项目]
        [localllm|没听说过 localllm|我不知道 localllm|我想了解 localllm|告诉我 localllm 是什么]
        [localllm] [究竟是啥|是什么软件|是什么工具|是个什么东西|的作用是什么|有什么功能|的用途是什么|主要做什么|怎么理解|是做啥用的]
        [一句话|简单|用简单的话|概括] [介绍 localllm|说明 localllm|解释 localllm|说说这个软件|说一下 localllm|讲讲 localllm]
        [听说了 localllm|刚听说 localllm|第一次听说 localllm|刚看到 localllm]，[它是什么|是干嘛的|做什么用的|这是什么]
        """,
        en_answers=(
            "localllm runs GGUF language models on your own machine with llama.cpp. It looks at "
            "your hardware, chooses the best settings for it and says why.",
        ),
        zh_answers=(
            "localllm 用 llama.cpp 在你自己的机器上运行 GGUF 语言模型。它会查看你的硬件，选出最合适的设置，并说明理由。",
        ),
        en_more="It plans before it downloads: llama.cpp itself says how much memory a model would "
        "take. Then it downloads exactly that, proves it intact, and chats or serves.",
        zh_more="它在下载之前就做好计划：由 llama.cpp 自己算出模型要用多少内存，然后只下载需要的文件，校验完整性，再聊天或提供服务。",
    ),
    Intent(
        "why",
        en="""
        why [should I|would I|would anyone|do people|should one] use [localllm|it|this|this program]
        what are the [advantages|benefits|strengths|features|main features|pros] of [localllm|this|it]
        what [is|makes] [localllm|it|this] [special|different|better|unique|so special|good]
        [what is so special about|what's special about|what is new in|what is good about] localllm
        [is localllm|is it|is this] [any good|worth it|good|better than others|useful|worth trying]
        [what|which] [is the benefit|is the advantage|do I gain|do I get|good reasons are there|are good reasons] [of using|from using|by using|for using|to use] [localllm|it|this]
        [convince me|sell it to me|give me reasons|tell me why|give me one reason] [to use localllm|I should use it|for localllm|why localllm|]
        [why|how come] [localllm|is localllm better|is this useful|is it special|choose localllm|would I need it|do I need localllm]
        what [can localllm do that others cannot|does localllm do better|is localllm good at|are the best features|sets it apart]
        """,
        zh="""
        [为什么要用|为什么用|为什么选|为什么要选|凭什么用] [localllm|它|这个|这个软件]
        [localllm|它|这个软件] [有什么优点|有什么好处|有什么特点|好在哪里|有什么特别|特别在哪|有什么不同|好用吗]
        [localllm|它|这个软件] [的优势是什么|的特点是什么|和别的有什么区别|有哪些功能|值得用吗|有什么优势]
        [给我|说说|列出] [用 localllm 的理由|选 localllm 的理由|它的优点|localllm 的优点|它的长处|它的卖点]
        [localllm|它|这东西] [强在哪里|厉害在哪|的优点有哪些|有什么长处|有啥优势|有啥好处|比别的强在哪|的亮点是什么|凭什么好]
        [用它|用 localllm|选它] [有什么好处|有啥好处|有什么优势|图什么|的原因是什么|能得到什么]
        """,
        en_answers=(
            "You never have to guess a flag: localllm plans exactly before the download, chooses "
            "quantization, context and GPU layers together, and gives a reason for each.",
        ),
        zh_answers=(
            "你不用再猜参数：localllm 在下载之前就精确规划，一起选好量化、上下文和 GPU 层数，并逐项说明理由。",
        ),
    ),
    Intent(
        "commands",
        en="""
        [what|which] [commands|subcommands] [are there|exist|do you have|does localllm have|can I use|can I run]
        [list|show|name|tell me|give me|what are] [all|] [the|all the] [commands|subcommands|available commands]
        [commands|command list|list of commands|all commands|usage|command line help|the command line]
        [what|which] commands [does localllm|does it|does this program] [have|offer|know|understand|support]
        [how do I see|where do I find|how can I get] [the help|help|all commands|the list of commands]
        how [many|which] commands [are there|does localllm have]
        [what|which] [can I type|do I type|can I run|words can I type|options do I have] [after localllm|in the shell|on the command line|in the terminal]
        [I need|I want|I'd like|give me|print|display] [the list of commands|an overview of the commands|to see all commands|the commands|all the commands|a command overview]
        [is there|do you have|where is] [a list of commands|a command list|a help page|an overview of commands|the manual|a manual|documentation]
        [the different|all the|the available|the names of the] [commands|subcommands]
        """,
        zh="""
        [有哪些|有什么|都有哪些|列出|列出所有|告诉我所有|显示所有|介绍一下] [命令|指令|子命令|可用命令]
        [localllm|它] [有哪些命令|有什么命令|有几个命令|支持哪些命令|支持什么命令|的命令有哪些|能用哪些命令]
        [命令列表|所有命令|命令有哪些|命令行怎么用|怎么看帮助|我可以用什么命令|可以用哪些命令|怎么查看所有命令]
        [想看|我想看|查看|给我看|打印|告诉我] [命令列表|有哪些命令|命令一览|全部命令|可用的命令|各个命令|命令清单]
        [localllm|这个工具|这个软件] [的命令|的子命令|的指令] [有哪些|都有什么|是什么|怎么查|列表|一览]
        [命令行|终端] [里可以输入什么|有什么命令|能用什么命令|怎么使用]
        [使用手册|说明书|文档|帮助文档] [在哪|在哪里|有吗|怎么看]
        """,
        en_answers=(
            "The main commands are doctor, plan, pull, chat, serve, list, show, verify, rm, tune, "
            "bench and engine. Type localllm --help to see them all.",
        ),
        zh_answers=(
            "主要命令有 doctor、plan、pull、chat、serve、list、show、verify、rm、tune、bench 和 engine。输入 localllm --help 查看全部。",
        ),
        en_more="doctor checks the machine, plan decides, pull downloads, chat talks, serve offers "
        "an API, tune and bench measure.",
        zh_more="doctor 检查机器，plan 做决定，pull 下载，chat 聊天，serve 提供 API，tune 和 bench 负责测量。",
    ),
    Intent(
        "install",
        en="""
        {how} [install|set up|get|build|download and install|start using] {it} [|on my machine|on my computer]
        {how} [install|set up|get] [localllm|it|this] [|on Linux|on Ubuntu|on my laptop|on a server|here]
        [install|installation|setup|installing localllm|install localllm|install guide|getting started]
        [where|how] do I [get|download|find] [localllm|this program|it]
        [what are the|give me the|tell me the] [installation|install|setup] [steps|instructions|commands]
        [is it|is localllm] [hard|easy|difficult|simple] to [install|set up]
        what does [install.sh|./install.sh|the install script] do
        [what|which] [are the steps|command do I run|steps do I follow|must I do] [to install localllm|to install it|to set it up|for the installation]
        [tell me about|describe|explain|guide me through|help with|help me with] [the installation|the setup|installing|installing it|the install process|setting it up]
        [I want|I'd like|I need|I would like] [localllm on my machine|to have localllm|it on my computer|localllm installed|to try localllm]
        [I have cloned|I downloaded|after cloning|I cloned] [the repository|the code|it], [what next|what now|now what|what do I do]
        [how long|how many minutes] does [the installation|installing|the install|the build|building] [take|need]
        [walk me through|lead me through|take me through|guide me in|assist me with|tell me all about] [the installation|the install|the setup|setting up|the installation of localllm]
        [how is|how was] [localllm|it|this program] [installed|set up|built|put on a machine]
        """,
        zh="""
        {怎么} [安装|装|部署|搭建] {它}
        [安装|怎么装|如何部署|怎么安装|安装步骤|安装方法|安装教程|安装说明|怎么装上|装起来]
        [localllm|它] [怎么安装|怎么装|如何安装|怎样安装|难装吗|好装吗|安装难吗|容易安装吗|在哪下载]
        [在|我想在] [我的电脑|服务器|Linux|笔记本|新机器] 上 [怎么安装|安装|装 localllm|怎么装]
        install.sh [是什么|做什么|是干什么的|有什么用]
        [安装|装|部署] [localllm|它|这个软件|这个] [的命令是什么|的步骤|的方法|要几步|要怎么做|的流程|需要多久|难不难]
        [我想要|我要|想要|想在电脑上] [装 localllm|安装它|装一个|安装 localllm|试试 localllm|用上 localllm]
        [克隆了仓库|下载了代码|代码下载好了|拿到代码] [之后怎么办|然后呢|后该做什么|，接下来呢|，下一步是什么]
        [新手怎么安装|第一次用怎么安装|从零开始怎么装|一步一步教我安装|如何把它装上|指导我安装]
        [带我|指导我|一步步教我] [安装|装好它|完成安装|把它装上]
        """,
        en_answers=(
            "Clone the repository and run ./install.sh. It makes .venv, builds the llama.cpp "
            "engine for your machine and installs localllm.",
        ),
        zh_answers=(
            "克隆仓库后运行 ./install.sh。它会建立 .venv，为你的机器编译 llama.cpp 引擎，并装好 localllm。",
        ),
        en_more="The build takes some minutes. Then try .venv/bin/localllm chat demo, and "
        "localllm doctor if something looks wrong.",
        zh_more="编译要几分钟。之后试试 .venv/bin/localllm chat demo；如果有问题，运行 localllm doctor。",
    ),
    Intent(
        "requirements",
        en="""
        [what|which] [python|python version|version of python] [do I need|is needed|is required|does it need]
        [what are the|what are its|tell me the] [requirements|system requirements|prerequisites|dependencies]
        what do I need to [install|build|run|use] {it}
        does it [work|run] [with|on] python [3|3.8|3.9|3.10|3.11|3.12|2]
        [do I need|is there a need for] [a compiler|gcc|cmake|python|python 3|git|root|sudo|docker]
        [which python|python version|minimum python|what is required|what software is needed]
        [is|are] [python 3.10|python 3.9|python 3.8|a compiler|gcc|python|cmake|root] [enough|needed|required|necessary|ok|sufficient|fine]
        [what|which] [software|programs|packages|tools|things] [do I need first|are needed|must I have|should be there|are required|does the installation need]
        [before|for] [installing|the installation|I install|building], [what do I need|what must I have|what is required]
        [my python is|I have python|I only have python] [3.8|3.9|3.10|3.11|3.12|too old|2.7]
        [the minimum|the lowest|the required|the oldest] [python version|version of python|python] [|that works|supported]
        [do I have to|must I|should I|need I] [have|install|own] [a compiler|gcc|cmake|python first|git|a C++ compiler|the compiler] [|installed|first|before]
        """,
        zh="""
        [需要|要|要求] [什么|哪个|哪个版本的|什么版本的] Python [|版本]
        [Python 版本|Python 要求|系统要求|安装要求|环境要求|依赖] [是什么|有哪些|是多少|要多少|]
        [需要|要|要不要|需不需要] [编译器|gcc|cmake|git|Python|root|docker] [吗|]
        [安装|运行|使用] [需要什么|需要什么条件|有什么要求|要准备什么|的前提是什么|要什么环境]
        [支持|能用] Python [3.8|3.9|3.10|3.11|3.12] 吗
        [最低|至少|起码] [需要|要] [什么 Python|哪个版本的 Python|Python 几|Python 3 点几|什么环境]
        [我的 Python 是|我只有 Python|我装的是 Python] [3.8|3.9|3.10|3.11|3.12] [，行吗|，可以吗|，够吗|]
        [安装前|编译前|安装之前|先] [要装什么|需要什么|要准备什么|有什么要求|需要装编译器吗|要装 Python 吗]
        [Python] [3.8|3.9|3.10|3.11|版本低|太旧] [行不行|可以吗|能用吗|够不够|怎么办]
        [安装|编译] [前|之前|它之前] [需要先装|要先有|得先装] [Python|编译器|git|gcc|什么] [吗|]
        """,
        en_answers=(
            "You need Python 3.10 or newer, git and a C++ compiler; ./install.sh does the rest.",
        ),
        zh_answers=("需要 Python 3.10 或更高版本、git 和 C++ 编译器，其余由 ./install.sh 完成。",),
    ),
    Intent(
        "systems",
        en="""
        does it [run|work] on [Windows|macOS|Linux|Mac|a Mac|WSL|Apple Silicon|a Raspberry Pi|ARM|my Mac]
        [which|what] [operating systems|platforms|systems|OS] [are supported|does it support|does it run on]
        [is|is there] [Windows|macOS|Linux|Mac|Apple] [supported|support]
        can I [use|run|install] {it} on [Windows|macOS|a Mac|Linux|WSL|Apple Silicon|my MacBook]
        [is|will] [localllm|it|this] [available for|made for|working on|going to work on|compatible with] [Windows|macOS|Linux|Mac|Apple computers|ARM]
        [I have|I use|I am on|my computer runs] [Windows|a Mac|macOS|Linux|Ubuntu|Windows 11|an Apple computer|Debian]
        [Windows|Mac|macOS|Linux|WSL|Apple] [users|support|version|computer|]
        [what|which] [OS|system|computers|kind of computer] [do I need|does it need|is required|can run it]
        """,
        zh="""
        [支持|能在|可以在] [Windows|macOS|Linux|苹果电脑|Mac|WSL|树莓派] [吗|上运行吗|上用吗|上跑吗]
        [支持|能在] [哪些系统|什么系统|哪些平台|哪些操作系统|什么平台|什么操作系统] [|上运行]
        [Windows|Mac|苹果电脑|macOS|Linux] [能用吗|可以用吗|支持吗|怎么办|上能跑吗]
        [我用的是|我的电脑是|我是|我用] [Windows|Mac|macOS|Linux|苹果|Ubuntu] [，能用吗|，可以吗|，支持吗|系统|电脑]
        [localllm|它|这个软件] [有 Windows 版吗|有 Mac 版吗|能在 Windows 上用吗|支持苹果吗|支持 Linux 吗|跨平台吗|支持什么系统]
        [在 Windows 上|在 Mac 上|在 Linux 上|在苹果电脑上] [行吗|能运行吗|可以装吗|怎么用|能用吗]
        """,
        en_answers=(
            "localllm is made on Linux. It also knows macOS with Metal, and on Windows you can use it inside WSL.",
        ),
        zh_answers=(
            "localllm 主要在 Linux 上开发，也认识使用 Metal 的 macOS；在 Windows 上可以在 WSL 里使用。",
        ),
    ),
    Intent(
        "other_model",
        en="""
        {how} [chat|talk|speak] [with|to] [another|a bigger|a real|a different|a better|my own|a large] model
        {how} [use|run|start|try|load|switch to] [another|a bigger|a real|a different|a better|a larger] model
        {how} [change|switch|swap|replace] [the model|models|model]
        {how} [chat|start chatting|start a chat|talk to {model}|run {model}|use the chat command]
        [what is|what does|explain|tell me about] [chat|localllm chat|the chat command] [|do]
        [can I use|do you support] [other|bigger|different] models
        [where is|give me|I want|I need] [the real model|a real model|a smarter model|a bigger model]
        [I want|I'd like|I would like|I need] [to use a bigger model|to chat with another model|a more powerful model|to try a real model|to switch models|a proper model|to talk to qwen|something smarter]
        [is it possible|am I allowed|is there any way] to [use another model|chat with a bigger model|change the model|load another model|talk to a different model]
        [you are too small|you're not smart enough|you know too little], [how do I get a bigger one|give me a bigger model|I want a better model|what else is there]
        [start|open|begin|launch] [a chat with qwen|a conversation with another model|a chat with a bigger model|the chat with my model]
        [which command|what command|the command] [starts a chat|runs a model|loads a model|opens a chat|begins a chat] [|with another model|with a bigger model]
        [could|may|can|might] I [use|try|load|have|get|take] a [more powerful|bigger|larger|smarter|stronger|more capable|more intelligent] [model|one|one instead of you]
        """,
        zh="""
        {怎么} [和|跟|与] [别的|其他|更大的|真正的|另一个|更好的|别的大] 模型 [聊天|对话|说话|聊]
        {怎么} [换|更换|切换|使用|运行|用|试试|启动|加载] [模型|别的模型|其他模型|更大的模型|真正的模型|大模型|一个模型|另一个模型]
        {怎么} [开始聊天|聊天|用 chat 命令|运行 chat]
        [chat|localllm chat|chat 命令] [是什么|怎么用|做什么|是干什么的|有什么用]
        [能换模型吗|可以换模型吗|能用别的模型吗|支持其他模型吗|我想要更聪明的模型|给我一个大模型|怎么聊天]
        [我想|我要|想] [用更强的模型|用大一点的模型|换一个聪明的模型|换个大模型|和 qwen 聊|跟别的模型说话|试试真正的模型|用真的模型|和大模型对话]
        [你太小了|你太笨了|你不够聪明]，[怎么换模型|怎么用大模型|我要更大的|换一个]
        [有没有|有] [更大的模型|更聪明的模型|更强的模型|别的模型|其他模型] [吗|可以用|可用吗|可以聊吗]
        [启动|打开|运行|开启] [一个聊天|和模型的对话|另一个模型|大模型|模型聊天] [|的命令|用什么命令|怎么做]
        [我要|我想|能不能] [跟|和] [真正的|更强的|别的|更聪明的] [大模型|模型|AI] [聊天|聊|对话|说话]
        """,
        en_answers=(
            "Run localllm chat MODEL, for example localllm chat qwen3:8b. It downloads the model "
            "if needed, chooses the settings and starts the chat.",
        ),
        zh_answers=(
            "运行 localllm chat MODEL，例如 localllm chat qwen3:8b。需要时它会先下载模型，选好设置，然后开始聊天。",
        ),
        en_more="MODEL can be an alias like qwen3:8b, a Hugging Face reference like "
        "org/repo:Q4_K_M, a URL, or a path to a GGUF file.",
        zh_more="MODEL 可以是 qwen3:8b 这样的别名、org/repo:Q4_K_M 这样的 Hugging Face 引用、网址，或者 GGUF 文件的路径。",
    ),
    Intent(
        "serve",
        en="""
        {how} [serve|start|run|offer|open|host|launch|set up|get|make] [an API|a server|the server|the API|a model as an API]
        {how} [serve|expose|host|share|publish] {model} [|over HTTP|on the network|to other programs|as a service]
        [what is|what does|explain|tell me about] [serve|localllm serve|the serve command|the server] [|do]
        is there [an API|a REST API|an HTTP API|a server|an OpenAI compatible API|an API server]
        [does it|does localllm|can it|can localllm] [have|offer|provide|serve] [an API|a server|an HTTP API]
        {how} use {it} from [my app|my program|another program|other programs|my code|my website]
        [API|API server|HTTP server|serving|start server|the API]
        [I want|I need|I'd like|we need] [an API|a local API|an HTTP server|a model server|to host a model|to serve a model|an endpoint]
        [can|could|may] [other programs|my app|my program|another computer|my website|several people|many users] [use the model|call the model|talk to the model|access the model|connect]
        [run|start|launch|open] [as a server|a local server|the server|an API server|llama-server|the API]
        [which command|what command|the command] [gives me an API|runs the server|serves a model|for the server|opens an API|offers an API]
        [how does|how do I use] [the serve command|localllm serve|serving|the server] [|work]
        """,
        zh="""
        {怎么} [提供|启动|开启|运行|搭建|架设|打开|起|开|部署] [API|服务|服务器|一个 API|接口|API 服务|一个服务器|API 接口]
        [serve|localllm serve|serve 命令|服务器|API] [是什么|怎么用|做什么|是干什么的|怎么开|怎么启动]
        [有|有没有|提供|支持] [API|接口|服务器|HTTP 接口|HTTP 服务|API 接口] [吗|]
        {怎么} [让别的程序调用|让其他程序使用|在我的程序里用|从代码里调用|把模型变成服务|对外提供服务|让别人用我的模型]
        [我想|我要|想|我需要] [一个 API|本地 API|起一个服务|开一个 API 服务|提供接口给别人|搭一个模型服务器|部署模型服务|做成接口]
        [让|给] [别人|其他程序|我的应用|网站|同事|前端] [调用模型|使用模型|访问模型|用这个模型|连接模型]
        [本地服务器|本地 API|模型服务|API 服务器|HTTP 服务] [怎么启动|怎么开|怎么跑|怎么搭|怎么弄|的命令]
        [哪个命令|什么命令|用什么命令] [启动服务器|开 API|提供服务|启动 API 服务|可以提供接口]
        """,
        en_answers=(
            "Run localllm serve MODEL. It starts an OpenAI-compatible HTTP API, with llama-server "
            "of llama.cpp behind it.",
        ),
        zh_answers=(
            "运行 localllm serve MODEL。它会启动兼容 OpenAI 的 HTTP API，背后是 llama.cpp 的 llama-server。",
        ),
        en_more="It listens on this machine only, unless you choose another address. Any OpenAI "
        "client can talk to it when you set its base URL.",
        zh_more="默认只在本机监听，除非你指定别的地址。任何 OpenAI 客户端只要改一下 base URL 就能使用。",
    ),
    Intent(
        "openai",
        en="""
        [is it|is the API|is the server|is localllm] [OpenAI compatible|compatible with OpenAI|like the OpenAI API]
        {how} [use|connect|point] [the OpenAI client|the openai library|OpenAI clients|the OpenAI SDK|an OpenAI client]
        [can I|could I|may I] use [the OpenAI client|openai python|the OpenAI library|LangChain|curl] [|with it|with localllm]
        [what|which] [endpoints|routes|API] does [it|the server|localllm] [have|offer|support|speak]
        [chat completions|v1/chat/completions|the endpoints|base url|what is the base URL]
        {how} call the [API|server] [|from python|with curl|from javascript]
        [does|will|can] [it|the server|the API|localllm] [understand|accept|follow|implement|mimic|support|speak] [the OpenAI API|OpenAI requests|OpenAI clients|the OpenAI format|the same API as OpenAI|chat completions]
        [I use|I have code for|my code uses|my program uses] [the OpenAI API|openai|the OpenAI client|the OpenAI SDK|the openai package]
        [can existing|do existing|will existing|can my existing] [OpenAI programs|OpenAI tools|OpenAI apps|clients|programs] [work|connect|be used|talk to it]
        [what|which] [URL|base URL|address] [do I give|do I set|goes into|do I put in] [my client|the OpenAI client|my program|the SDK]
        """,
        zh="""
        [兼容|支持|能用] [OpenAI|OpenAI 接口|OpenAI 的 API|OpenAI 客户端|openai 库] [吗|]
        {怎么} [用 OpenAI 客户端连接|用 openai 库|用 curl 调用|用 Python 调用 API|调用 API|调用接口|连接 OpenAI 客户端]
        [有哪些|支持哪些|有什么] [接口|端点|路径|API 接口]
        [base url 是什么|base_url 填什么|接口地址是什么|和 OpenAI 的接口一样吗|API 兼容 OpenAI 吗]
        [接口|API|服务器] [和 OpenAI 一样吗|是 OpenAI 格式吗|跟 OpenAI 一样吗|是 OpenAI 的格式吗|遵循 OpenAI 吗|支持 OpenAI 协议吗]
        [我的代码用的是|我在用|我现在用|程序用的是] [OpenAI|openai 库|OpenAI 的接口|OpenAI SDK] [，能连吗|，可以换过来吗|，能直接用吗|，怎么改|]
        [OpenAI 的客户端|OpenAI SDK|现有的 OpenAI 程序|LangChain|openai 包] [能用吗|可以用吗|能连上吗|怎么连接|行吗]
        """,
        en_answers=(
            "Yes, the server speaks the OpenAI API: set the base URL of your client to the "
            "server's address followed by /v1 and call chat/completions as usual.",
        ),
        zh_answers=(
            "是的，服务器兼容 OpenAI API：把客户端的 base URL 设为服务器地址加 /v1，照常调用 chat/completions 即可。",
        ),
    ),
    Intent(
        "webui",
        en="""
        [is there|do you have|does it have|does localllm have] [a web UI|a web interface|a GUI|a website|a graphical interface]
        {how} [open|use|get|see|start] [the web UI|a web interface|the GUI|the browser interface|the web page]
        can I [chat|use it|talk to the model|use localllm] in [a browser|my browser|the browser|a window]
        [web UI|webui|GUI|web interface|browser]
        [do you|does localllm|does it|does the server] [have|offer|include|provide|come with] [a page in the browser|a UI|a nice interface|something graphical|a window|a user interface|a chat page]
        [I prefer|I want|I'd like|I would rather use] [a browser|a web page|a graphical interface|a GUI|a window|buttons|a web UI]
        [open|show|use] [it in the browser|the web page|a page in Firefox|the chat in the browser|the web interface|the UI]
        [is there|where is] [a page|a web page|a browser version|the web page|a graphical version] [I can open|for chatting|to chat|]
        [do you have|is there|does it have|can I open] [a page|something|a window|a chat|an interface] [I can open in Chrome|in Chrome|in Firefox|for the browser|in Safari|to click on|with a mouse]
        """,
        zh="""
        [有|有没有|提供|支持] [网页界面|图形界面|网页|web 界面|GUI|网页版|可视化界面] [吗|]
        {怎么} [打开网页界面|用网页聊天|在浏览器里用|打开图形界面|用浏览器聊天|使用网页版]
        [网页界面|图形界面|能在浏览器里聊天吗|可以用浏览器吗|网页版在哪|有界面吗]
        [我想|能不能|可以|想要] [在网页里聊|用浏览器打开|用界面操作|要图形界面|有个窗口|用网页版|在 Firefox 里用|打开一个网页]
        [网页|浏览器|界面|UI] [在哪里打开|怎么打开|怎么用|有没有|怎么进|能用吗|版有吗]
        [有没有|带|有] [聊天页面|界面|窗口|网页版|浏览器版|UI|前端页面] [吗|可用|]
        [能不能|可以|可不可以] 用 [Chrome|浏览器|火狐|Safari|Edge|网页] [打开来聊|打开|来聊天|访问|操作]
        """,
        en_answers=(
            "Yes: llama-server has a web UI. Start localllm serve MODEL and open its address in your browser.",
        ),
        zh_answers=(
            "有：llama-server 自带网页界面。运行 localllm serve MODEL，然后在浏览器里打开它的地址。",
        ),
    ),
    Intent(
        "port",
        en="""
        [which|what] [port|address|host] [does it use|is used|does the server use|does it listen on|is the server on]
        {how} [change|set|choose|pick|use] [the port|another port|a different port|the address|the host]
        [the port|my port|port] [is|is already] [in use|taken|busy|occupied|used]
        {how} [listen on|reach it from|use it from|access it from] [another machine|the network|my phone|all addresses|another computer]
        [port|server address|port number|the default port]
        [what is|what's|tell me|where do I find] [the default port|the port number|the port|the server address|the address of the server|its address]
        [can I|may I|is it possible to|could I] [change the port|use port 9999|choose another port|set the port|listen on 0.0.0.0|bind to another address]
        [can|could] [other machines|my phone|other computers|another computer|my colleagues] [reach the server|connect|access it|connect to the server|use my server]
        [run|start] [the server|it|serve] on [port 5000|another port|a different port|port 1234|all interfaces|my local network]
        """,
        zh="""
        [用|监听|使用] [哪个|什么] [端口|地址]
        {怎么} [改端口|换端口|设置端口|指定端口|修改地址|修改端口|更换端口|设置监听地址]
        [端口|端口号|默认端口] [是多少|被占用了|被占用怎么办|怎么改|冲突了|是什么|怎么设置]
        {怎么} [从别的机器访问|在局域网里访问|让手机访问|从另一台电脑连接|远程访问]
        [默认端口|服务器的端口|服务的地址|服务器地址|监听地址] [是多少|是什么|是哪个|在哪看|可以改吗|能改吗]
        [可以|能|能不能] [换端口|改端口|用别的端口|指定端口|换个端口|监听所有地址|用 5000 端口] [吗|]
        [手机|别的电脑|局域网里的电脑|同事|其他机器] [能访问吗|怎么连接|能连吗|可以访问吗|能用我的服务器吗]
        [用|在] [5000|1234|9999|别的|另一个] 端口 [启动|运行|监听|上运行]
        """,
        en_answers=(
            "The server listens on 127.0.0.1, port 8080, so only this machine can reach it. Choose "
            "others with --host and --port.",
        ),
        zh_answers=(
            "服务器监听 127.0.0.1 的 8080 端口，只有本机能访问。可以用 --host 和 --port 换成别的。",
        ),
    ),
    Intent(
        "key",
        en="""
        {how} [set|use|add|create|make|require|get] [an API key|a key|API keys|a password|keys|a token for the API]
        [do I need|is there|does it need|does the server need] [an API key|a key|a password|authentication]
        {how} [protect|secure|lock] [the server|the API|my server|access]
        [API key|api keys|authentication|password|is the server secure|is the API protected]
        [should I|must I|do I have to|do clients need to] [set a key|send a key|use an API key|have a key|give a key|set a password|log in]
        [what|which] [API key|key|token|password] [do I use|do I need|should I enter|does it want|do I put]
        [I want|I'd like] [to protect the server|a password for the server|an API key|to restrict access|only me to use the server]
        [is|are] [an API key|a key|keys|a password|a login] [needed|required|necessary|supported|possible]
        [anyone|everyone|strangers] can [use my server|access my server|connect to my server]
        """,
        zh="""
        {怎么} [设置密钥|设置 API key|加密码|加密钥|保护服务器|设置 API 密钥|使用密钥|保护 API]
        [需要|要|有没有|有] [密钥|API key|密码|API 密钥|认证] [吗|]
        [API key|密钥|API 密钥] [是什么|怎么设置|在哪里|怎么用|填什么]
        [服务器安全吗|接口安全吗|怎么认证|怎么鉴权]
        [客户端|调用时|连接时|请求时] [要填密钥吗|要填什么 key|需要 key 吗|密钥填什么|需要认证吗|要密码吗]
        [我想|想|怎样] [给服务器加密码|限制访问|只让自己用|加个 key|加一个密钥|防止别人用]
        [必须|一定要] [有密钥|设密钥|设密码|有 API key|登录] [吗|]
        [谁都能用我的服务器吗|别人能随便用吗|服务器会被别人用吗|要不要登录]
        """,
        en_answers=(
            "On this machine no key is needed. To listen on the network, put keys into a file and "
            "start with --api-key-file FILE; clients send one as a Bearer token.",
        ),
        zh_answers=(
            "在本机使用不需要密钥。要对网络开放，把密钥写进文件，用 --api-key-file 文件 启动；客户端以 Bearer 方式发送。",
        ),
    ),
    Intent(
        "doctor",
        en="""
        {how} [check|test|see|inspect|examine|look at|show|detect] [my hardware|my machine|my computer|my system|what hardware I have]
        {how} [check|test|see|know] [if|whether] [everything works|my setup works|my GPU is used|my GPU is found|it is installed correctly]
        [what is|what does|explain|tell me about|describe] [doctor|localllm doctor|the doctor command] [|do]
        [doctor|the doctor|diagnose my machine|check my hardware|diagnosis|hardware check|system check]
        [something is wrong|it does not work|it doesn't work|nothing works|it is broken|I have a problem] [|with my machine|with my setup]
        [what|which] hardware [do I have|is in my machine|does it see|is detected]
        [I want|I'd like|I need] [to check my hardware|to know my hardware|to test my machine|a hardware check|to see if my GPU works|to check my setup|a diagnosis]
        [does|did] [it|localllm] [see|find|recognise|detect|use|recognize] [my GPU|my graphics card|my hardware|the GPU|my memory]
        [why is|why isn't|why does it not use] my [GPU not used|GPU|graphics card not found|GPU used|GPU found|GPU not detected]
        [there is a problem|I have trouble|it fails|it won't start|it does not start|my setup is broken|it stopped working], [what now|what do I do|help|how do I find out why|what is wrong]
        [which command|what command|what] [checks|tests|diagnoses|examines|inspects|shows] [my machine|my hardware|my setup|my system|the computer]
        [is my|is the] [machine|setup|installation|computer|system] [ok|all right|fine|good|healthy]
        [is there a way to|how can I|I want to] [see whether|check whether|know whether|find out if|tell if] my [GPU|graphics card|hardware|card|machine] [was recognised|is recognised|was found|is seen|is detected|works|is set up right]
        """,
        zh="""
        {怎么} [检查|查看|检测|看|诊断|了解|测试] [硬件|我的硬件|机器|我的电脑|我的机器|系统|电脑配置|显卡是否可用|显卡|环境]
        [doctor|localllm doctor|doctor 命令] [是什么|怎么用|做什么|是干什么的|有什么用]
        [硬件检查|检查硬件|诊断|用不了|不能用|出问题了|坏了|跑不起来|运行不了|有问题怎么办|不工作]
        [我的电脑有什么硬件|我有什么硬件|怎么知道装好了没有|怎么知道 GPU 用上没有|怎么知道显卡有没有被识别]
        [我想|想|我要] [检查硬件|看看我的配置|查看电脑配置|做个诊断|检查一下环境|看看机器状态|检查安装|了解我的机器]
        [显卡|GPU|硬件] [没被识别|识别不到|没用上|有没有用上|检测不到|用上了吗|识别了吗|为什么没用上]
        [启动失败|启动不了|打不开|老是出错|装好了但不能用|运行失败|出了故障|有毛病] [|怎么办|，怎么查原因|，怎么诊断]
        [哪个命令|什么命令|用什么命令] [检查机器|检查硬件|诊断问题|看硬件|做检查]
        [我的环境|我的机器|我的安装|电脑] [正常吗|有问题吗|配置如何|状态如何|是否正常]
        """,
        en_answers=(
            "Run localllm doctor. It shows your hardware and what the engine was built for, finds "
            "mismatches, and prints the line that mends each one.",
        ),
        zh_answers=(
            "运行 localllm doctor。它会显示你的硬件和引擎的编译方式，找出不匹配之处，并给出修复的那一行命令。",
        ),
        en_more="Add --json for a document that programs can read, or --report for a report to "
        "attach to a bug.",
        zh_more="加 --json 可以得到程序能读的文档，加 --report 可以得到用来报告问题的报告。",
    ),
    Intent(
        "plan",
        en="""
        [what is|what does|explain|tell me about|describe] [plan|localllm plan|the plan command|a plan] [|do]
        {how} [see|know|check|find out|tell] [if|whether] [a model|it|the model|my model|an 8B model|a 70B model] [fits|will fit|runs|can run] [|in memory|on my machine|on my GPU]
        [will|can|does] [a model|it|this model|a 70B model|a 7B model|an 8B model|my model|a 13B model] [fit|fit in memory|fit my GPU|run on my machine|run here|fit on my GPU]
        {how} [see the plan|make a plan|plan a model|see the settings|see the chosen settings before downloading]
        [what|which] models can [I|my machine|my computer|my GPU] run
        [before|without] [I download|downloading], [can I see what fits|can I know if it fits|how do I know it fits|what does it need|show me the plan]
        [is|will] [my machine|my computer|my GPU|my laptop|my graphics card] [big enough|strong enough|good enough|able to run it|sufficient] [|for a 70B model|for this model|for 8B]
        [how big|how large|what size of] [a model|can a model be|model] [can I run|fits|fits in my memory|can my machine run|to fit]
        [can|could|would] [I|my computer|my machine|my laptop|this PC] [run|handle|manage|load] [a 70B model|an 8B model|a 13B model|llama 70B|qwen 32B|a large model|it]
        [show|tell] me [what would fit|what fits|if it fits|whether it fits|the plan|what the plan is|which models fit]
        """,
        zh="""
        [plan|localllm plan|plan 命令|计划] [是什么|怎么用|做什么|是干什么的|有什么用]
        {怎么} [知道模型能不能跑|知道放不放得下|看模型能否运行|查看计划|做计划|提前知道能不能运行|知道内存够不够]
        [我的机器|我的电脑|我的显卡|这台机器] [能跑什么模型|能运行哪些模型|能跑 70B 吗|能跑多大的模型|能跑 8B 吗|跑得动吗|带得动吗]
        [这个模型|模型|70B 模型|8B 模型] [放得下吗|能跑吗|跑得动吗|装得下吗|能运行吗|我能跑吗]
        [下载之前|下载前|提前|事先] [看看能不能跑|看看放不放得下|知道能不能运行|知道要多少内存|怎么看够不够|查看能否运行]
        [我的显卡|我的内存|我的笔记本|我电脑] [够跑 70B 吗|够大吗|能装下 8B 吗|能跑多大|够不够跑模型|能不能跑大模型|能放下多大的模型]
        [多大的模型|什么样的模型|哪些模型|几 B 的模型] [我能跑|能在我电脑上跑|适合我的内存|放得下|可以在这台机器上运行]
        [70B|32B|13B|8B] [能跑吗|跑得了吗|放得下吗|带得动吗|能运行吗]
        """,
        en_answers=(
            "Run localllm plan MODEL. Before any download it says which quantization, context and "
            "GPU layers fit your machine, how much memory they take, and why.",
        ),
        zh_answers=(
            "运行 localllm plan MODEL。下载之前它就会告诉你哪种量化、多大上下文、多少 GPU 层适合你的机器，要用多少内存，以及理由。",
        ),
        en_more="You can also plan for a machine that you do not have, with --hw, --vram or --ram.",
        zh_more="你也可以用 --hw、--vram 或 --ram 为一台手头没有的机器做计划。",
    ),
    Intent(
        "decide",
        en="""
        how does [localllm|it|the planner|this program] [decide|choose|plan|pick|know] [|settings|the settings|what fits|the quantization|what to do|the layers]
        how are [the settings|settings|the values|the flags|the parameters] [chosen|decided|found|computed|calculated]
        how does [localllm|it] [know|estimate|compute|calculate|predict] [the memory|how much memory is needed|the memory use|memory|if a model fits]
        [what is|explain] [a dry run|the dry run|dry run] [|of llama.cpp]
        [is the|how exact is the|how good is the|how accurate is the] [plan|estimate|estimation|memory estimate|prediction] [exact|accurate|reliable|]
        [how|in what way|on what basis] [are decisions made|does it make decisions|does it set everything|does it pick the settings|does it find the settings|does the plan work|does planning work]
        [who|what] [chooses|decides|sets|picks] [the settings|the context|the parameters|the quantization|the number of layers|everything]
        [how|how exactly] can it [know|tell|say|predict] [the memory before the download|what fits before downloading|so exactly|the exact memory|in advance]
        [what is|what's|explain] [behind the plan|the method|the trick|the algorithm behind the plan|behind the estimate|the logic behind it]
        [where do|how come] [the numbers in the plan|the estimates|the settings|these settings|the memory numbers] [come from|are so exact]
        [where do|from where do|how come] the [chosen numbers|chosen values|chosen settings|numbers|values|parameters] [come from|come out like this|get chosen|get decided]
        """,
        zh="""
        [localllm|它] [怎么决定|怎么选择|如何选择|怎么做决定|如何决定|怎样选择|怎么选] [设置|参数|量化|层数|]
        [localllm|它] [怎么知道|怎么估计|如何计算|怎么算|如何知道] [内存|要多少内存|模型放不放得下|内存用量|需要多少内存]
        [什么是试运行|试运行是什么|dry run 是什么|参数是怎么选的|设置是怎么来的|估计准吗|估算准确吗|计划准不准]
        [它|localllm|程序] [凭什么决定|根据什么选|依据什么|怎样做计划|怎么得出结论|怎么算出来的|怎么定参数|如何规划|如何估算]
        [参数|设置|层数|计划里的数字|内存数字|上下文大小] [是谁定的|怎么定的|从哪来的|是怎么算出来的|根据什么定|怎么得来的|由什么决定]
        [没下载|还没下载|下载前] [怎么知道内存|它怎么能算出内存|怎么就知道能放下|凭什么知道]
        [估算|规划|计划] [的原理|的方法是什么|是怎么做的|靠什么|的算法是什么]
        """,
        en_answers=(
            "It reads only the model's header, a few MB, and lets llama.cpp do a dry run with it. "
            "So llama.cpp itself says how much memory is needed, before the download.",
        ),
        zh_answers=(
            "它只读取模型的文件头，几 MB，再让 llama.cpp 用它试运行。所以在下载之前，就由 llama.cpp 自己算出需要多少内存。",
        ),
    ),
    Intent(
        "pull",
        en="""
        {how} [download|pull|fetch|get] {model}
        {how} [download|pull|fetch] [models|new models|one|it first|without chatting|from the hub|a model without running it]
        [what is|what does|explain|tell me about] [pull|localllm pull|the pull command] [|do]
        [download|downloading|pull a model|model download|where do models come from|where do I get models]
        [I want|I'd like|I need] [to download a model|a new model|to get a model|to fetch a model|a model on my disk|to pull a model]
        [which command|what command|the command] [downloads a model|fetches a model|pulls a model|gets a model|to download|for downloading]
        [can I|could I|is it possible to] [only download|just download|download without chatting|download a model now and use it later|download in advance]
        [get|fetch|download|pull] [me a model|the model qwen3:8b|qwen3|llama|it now|a new one]
        """,
        zh="""
        {怎么} [下载|拉取|获取|下] [模型|一个模型|新模型|GGUF 模型|模型文件]
        [pull|localllm pull|pull 命令] [是什么|怎么用|做什么|是干什么的|有什么用]
        [模型怎么下载|模型从哪里来|从哪里下载模型|去哪里下载模型|下载模型|下模型|模型在哪下载]
        [我想|我要|想] [下载模型|下一个模型|拉一个模型|拿一个模型|先下载|下载一个 qwen|获取模型|把模型拉到本地]
        [只|仅] [下载|拉取] [模型|不聊天|不运行] [|可以吗|怎么做|怎么弄]
        [下载|拉取] [qwen|llama|模型|新模型|大模型] [的命令|用什么命令|用哪条命令|怎么操作]
        """,
        en_answers=(
            "Run localllm pull MODEL. It downloads exactly the files that the plan needs and checks "
            "them; localllm chat MODEL does this by itself too.",
        ),
        zh_answers=(
            "运行 localllm pull MODEL。它只下载计划需要的文件并校验；localllm chat MODEL 也会自动下载。",
        ),
    ),
    Intent(
        "resume",
        en="""
        [can|does] [a download|downloads|it|the download] [resume|continue|go on|be resumed|be continued] [|later|after an interruption|where it stopped]
        {how} [resume|continue|restart|finish] [a download|the download|an interrupted download|my download|a broken download]
        [what if|what happens if|what happens when] [the download|my connection|the network|my internet] [stops|breaks|fails|is interrupted|is cut|dies]
        [my download|the download] [stopped|was interrupted|failed|broke|broke off|is stuck]
        do I have to [start|download] [again|from the beginning|everything again|all over]
        [the|my] [download|connection|wifi|internet] [was cut|dropped|got lost|hung up|is unstable|is bad|disappeared] [|in the middle|halfway|while downloading]
        [do|must|should|will] I [begin again|lose everything|start over|lose the part already downloaded|repeat the download|have to restart]
        [is|are] [resuming|resume|partial downloads|broken downloads|half downloads] [supported|possible|kept|ok]
        [I stopped|I cancelled|I interrupted|I closed] [the download|downloading|the program while downloading]
        [can I|could I|may I] [pause|stop and continue|interrupt|resume|go on with] [a download|the download|downloading|it later]
        """,
        zh="""
        [下载|模型下载] [能断点续传吗|可以续传吗|能继续吗|中断了怎么办|断了怎么办|失败了怎么办|停了怎么办|断了|卡住了]
        [支持断点续传吗|怎么继续下载|如何续传|断网了怎么办|网络断了会怎样|要重新下载吗|需要从头下载吗|下载到一半断了]
        {怎么} [继续下载|恢复下载|续传|接着下载]
        [下载|网络|连接] [中断|断开|掉线|不稳定|断掉|失败] [了|了还能继续吗|之后怎么办|会怎样|要重来吗|怎么接着下]
        [我|刚才] [取消了下载|停止了下载|关掉了下载|下载时断电了|不小心关了] [|，怎么继续|，要重来吗]
        [可以|能|能不能] [暂停下载|继续下载|断点续传|恢复下载|接着下|分几次下载] [吗|]
        [已经下载的部分|下了一半的文件|下载的进度] [会丢吗|还在吗|能继续用吗|会保留吗]
        """,
        en_answers=(
            "Downloads resume: run the same command again and it goes on where it stopped.",
        ),
        zh_answers=("下载支持断点续传：再运行一次同样的命令，就会从断开的地方继续。",),
    ),
    Intent(
        "integrity",
        en="""
        {how} [verify|check|validate|prove] [a file|a model|the download|my model|my models|the model file|files|that a file is intact]
        [what is|what does|explain|tell me about] [verify|localllm verify|the verify command|sha256|SHA-256|a checksum] [|do]
        [is the|how do I know the|how do I know that the] [download|file|model] is [intact|correct|complete|not broken|not corrupted|safe|genuine]
        [my model file|the file|a file|my download] [is|may be|could be] [corrupt|corrupted|damaged|broken]
        [are downloads|is the download] [verified|checked|secure]
        [is|are|was] [my file|my download|the file|the model|my models|the downloads] [ok|good|fine|complete|undamaged|correct|authentic|checked|tested]
        [could|can|may] [the file be broken|a download be wrong|files get corrupted|the model be damaged|bits flip|the file be fake]
        [I want|I'd like|I need] [to verify a model|to check a file|to be sure the file is right|to verify my download|the checksum|to check the hash]
        [does it|do you|does localllm] [verify|check|compare|test|validate] [the hash|the checksum|downloads|files|the files|what it downloads|hashes]
        [which command|what command] [verifies|checks] [a model|files|models|the files|a download]
        """,
        zh="""
        {怎么} [校验|验证|检查] [模型|文件|模型文件|下载|下载的文件|完整性|下载是否完整]
        [verify|localllm verify|verify 命令|SHA-256|sha256|校验和] [是什么|怎么用|做什么|是干什么的|有什么用]
        [文件|模型|下载的文件] [损坏了怎么办|坏了怎么办|完整吗|可靠吗|会不会损坏|是不是完整的|安全吗]
        [下载会校验吗|怎么知道文件没坏|怎么保证完整|下载安全吗]
        [文件|模型|下载] [是好的吗|有没有损坏|对不对|正确吗|被篡改了吗|出错了吗|有问题吗] [|，怎么查|，怎么检查]
        [会|会不会|有没有] [校验下载|检查哈希|检查完整性|验证哈希|做校验|比对校验和|核对哈希] [吗|]
        [我想|想|要] [校验一下|检查一下文件|验证模型|核对文件|确认文件完整|验证一下下载]
        [哈希|校验|完整性] [怎么检查|怎么看|检查|怎么保证|在哪看]
        """,
        en_answers=(
            "Every download is checked with SHA-256 while it is written. Run localllm verify to "
            "check the files again later.",
        ),
        zh_answers=(
            "每次下载都会边写边用 SHA-256 校验。之后可以运行 localllm verify 再检查一遍。",
        ),
    ),
    Intent(
        "list",
        en="""
        {how} [list|see|show] [my models|all models|the models|models that I have|installed models|downloaded models|local models]
        [which|what] models [do I have|are installed|are downloaded|are here|are on my disk|are on this machine|did I download]
        [what is|what does|explain|tell me about] [list|localllm list|the list command] [|do]
        [list models|my models|show my models|list of my models]
        [I want|I'd like|let me|I need] [to see my models|see what I have|see the models|a list of models|to know which models I have|see what is installed|see what is downloaded]
        [have I|did I] [downloaded any models|got any models|any models here|already download a model|downloaded qwen]
        [what|which] [is|models are] [on this computer|on disk|in my collection|already here|stored here|available locally|available offline]
        [show|print|display|give] [me my models|the installed models|what is installed|the local models|what I have|details of a model]
        """,
        zh="""
        {怎么} [列出|查看|显示|看] [模型|我的模型|所有模型|已下载的模型|已有的模型|本地模型|下载过的模型]
        [我有|本地有|已经有|这里有|机器上有] [哪些模型|什么模型|几个模型|多少模型]
        [list|localllm list|list 命令] [是什么|怎么用|做什么|是干什么的]
        [我的模型|列出模型|模型列表|看看我的模型]
        [我想|想|让我] [看看有什么模型|看我的模型|知道有哪些模型|查一下模型|看看下载了什么|看已安装的模型]
        [电脑里|硬盘上|本机|这里|磁盘上] [有什么模型|有哪些模型|装了什么模型|存了哪些模型|的模型有哪些|有几个模型]
        [已下载|已安装|本地|下载好] 的模型 [有哪些|在哪看|怎么看|列表|列出来]
        """,
        en_answers=(
            "Run localllm list to see the models on this disk, and localllm show MODEL for the "
            "details of one.",
        ),
        zh_answers=(
            "运行 localllm list 查看本机的模型，运行 localllm show MODEL 查看某个模型的详情。",
        ),
    ),
    Intent(
        "remove",
        en="""
        {how} [remove|delete|uninstall|erase|get rid of|throw away|clean up] [a model|the model|models|old models|my model|a model file]
        [what is|what does|explain|tell me about] [rm|localllm rm|the rm command] [|do]
        {how} [free|get back|save|reclaim] [disk space|space|disk|some space]
        [my disk is|the disk is|disk] [full|nearly full|almost full]
        [delete|remove] [model|models|a model]
        [I want|I'd like|I need|please help me] [to delete a model|to remove a model|to free space|to get rid of a model|to uninstall a model|more disk space|to clean my disk]
        [which command|what command|the command] [deletes a model|removes models|frees space|for deleting|to delete|uninstalls a model]
        [the models|a model|models|my models|it] [take too much space|takes too much space|should be deleted|is not needed any more|take up the whole disk|must go|use too much disk]
        [not enough|no more|too little] [disk space|space|room on the disk|space left]
        [I want to|how to|I'd like to|please|let me] [erase|delete|wipe|drop|remove|discard] [a model|this model|that model|the old model|one of my models|a model from disk]
        [erase|wipe|delete] [models|a model|the model] [from disk|from my computer|for good]
        """,
        zh="""
        {怎么} [删除|删掉|移除|卸载|清理|去掉|清除] [模型|一个模型|不要的模型|旧模型|下载的模型|模型文件]
        [rm|localllm rm|rm 命令] [是什么|怎么用|做什么|是干什么的]
        [磁盘满了|硬盘满了|磁盘空间不够|怎么释放空间|怎么腾出空间|怎么节省磁盘|删除模型|空间不足怎么办|删模型]
        [我想|我要|想] [删模型|删除一个模型|清理磁盘|释放空间|卸载模型|把模型删掉|去掉一个模型|腾地方]
        [模型|这些模型|旧模型] [太占空间|占地方|不用了|用不着了|太多了|占满了硬盘] [|怎么删|，怎么清理]
        [删|清除|移除] [模型|不用的模型|一个模型] [的命令|用什么命令|怎么操作|用哪个命令]
        [硬盘|磁盘|空间] [不够了|满了怎么办|不足|快没了|快用完了]
        """,
        en_answers=("Run localllm rm MODEL to remove a model and free its disk space.",),
        zh_answers=("运行 localllm rm MODEL 删除模型，释放磁盘空间。",),
    ),
    Intent(
        "tune",
        en="""
        {how} [tune|optimise|optimize|calibrate] [localllm|it|the settings|a model|for my machine|my machine|the speed]
        {how} [find|get] [the best settings|the fastest settings|the best speed|optimal settings]
        [what is|what does|explain|tell me about] [tune|localllm tune|the tune command|tuning] [|do]
        {how} make [it|the model|localllm|generation|my model] [faster|run faster|quicker|as fast as possible]
        [I want|I'd like|I need] [more speed|it faster|the best performance|the fastest settings|better performance|to tune it|to optimise the settings]
        [can|could] [it|localllm|the model] [be faster|be tuned|optimise itself|run faster|be optimised|get faster|go faster]
        [is there|do you have|what is] [a way to speed it up|automatic tuning|something to make it faster|an optimiser|a tuning command]
        [speed up|optimise|optimize|accelerate] [it|generation|my model|inference|localllm|everything]
        [which|what] [settings|flags|options|values] [are fastest|give the best speed|are best for speed|make it fast]
        """,
        zh="""
        {怎么} [调优|优化|调整性能|让它更快|加速|提速|找到最快的设置|找到最佳设置|提高速度|提升速度|让模型更快]
        [tune|localllm tune|tune 命令|调优] [是什么|怎么用|做什么|是干什么的|有什么用]
        [怎么变快|怎么跑得更快|能更快吗|最佳设置是什么|怎么优化性能]
        [我想|我要|想] [让它更快|提速|更快一点|优化一下|调优|加快速度|跑快一点|获得最佳性能]
        [能|可以|能不能] [更快一点|再快点|自动优化|自动调优|加速|调快一点|跑得更快] [吗|]
        [怎样|哪些设置|什么参数|什么设置] [最快|速度最快|更快|能提高速度|跑得最快]
        [提高性能|性能优化|自动调参|速度优化|加快生成]
        """,
        en_answers=(
            "Run localllm tune MODEL. It measures which settings are fastest on your machine and "
            "keeps them for the next time.",
        ),
        zh_answers=(
            "运行 localllm tune MODEL。它会测量哪些设置在你的机器上最快，并保存下来供下次使用。",
        ),
    ),
    Intent(
        "bench",
        en="""
        {how} [benchmark|measure|test] [the speed|speed|performance|my machine|a model|how fast a model is|the performance]
        [what is|what does|explain|tell me about] [bench|localllm bench|the bench command|a benchmark] [|do]
        how fast [is it|is my machine|is this|is the model|will it be|is localllm|does it run]
        {how} [know|see|find out] how fast [a model|it|my machine|the model] is
        [benchmark|speed test|bench|performance test|measure speed]
        [I want|I'd like|I need|let me] [to know how fast it is|to test the speed|a benchmark|to benchmark my machine|to measure performance|to see the speed|some speed numbers]
        [what|which] [speed|performance] [can I expect|do I get|will I have|does my machine have|does it reach|is possible here]
        [which command|what command] [measures speed|tests the speed|runs a benchmark|benchmarks|measures performance]
        [test|measure|check|try] [performance|how fast it runs|the tokens per second|my speed|the speed of the model]
        """,
        zh="""
        {怎么} [测速|测试速度|测量速度|跑分|做基准测试|测性能|测试性能|评测速度]
        [bench|localllm bench|bench 命令|基准测试] [是什么|怎么用|做什么|是干什么的]
        [它有多快|速度有多快|多快|我的机器有多快|模型有多快|速度怎么样|性能怎么样|跑得多快|怎么知道有多快]
        [我想|我要|想] [测一下速度|跑个分|知道速度|看看有多快|做基准测试|测试一下性能|测试机器|测一测]
        [哪个命令|什么命令|用什么] [测速度|测性能|跑分|做基准测试|可以测速]
        [我的电脑|我的机器|这台机器|我的显卡] [速度怎么样|性能怎么样|能有多快|跑得多快|快不快]
        """,
        en_answers=(
            "Run localllm bench MODEL. It measures how many tokens per second your machine reaches.",
        ),
        zh_answers=("运行 localllm bench MODEL。它会测量你的机器每秒能生成多少 token。",),
    ),
    Intent(
        "engine",
        en="""
        [what is|what does|explain|tell me about|describe] [the engine|engine|localllm engine|the engine command] [|do]
        {how} [rebuild|build|update|reinstall|compile|upgrade] [the engine|llama.cpp|the llama.cpp engine]
        [the engine|llama.cpp|my engine] is [missing|broken|not found|not there|too old]
        {how} [build|rebuild|compile] [it|the engine|llama.cpp] [with CUDA|for my GPU|with Vulkan|for CUDA|with GPU support]
        [which|what] engine [is used|does it use|do you use|runs the model]
        [what|which] [software runs the model|version of llama.cpp is used|engine do I have|runs underneath|is the backend]
        [I want|I need|I'd like] [to rebuild the engine|a new engine|to compile llama.cpp|a CUDA build|to update llama.cpp|an engine with GPU support]
        [the|my|this] engine [does not work|doesn't start|fails|was built without CUDA|has no GPU support|cannot be found|crashes|is outdated]
        [check|show|see|print] [the engine|the engine version|the engine status|which engine is installed]
        [compile|build|recompile|rebuild] [llama.cpp|the engine] [again|anew|once more|for my machine|from source|with CUDA]
        {how} [compile|build|recompile|rebuild] [llama.cpp|the engine] [again|anew|once more|from source]
        """,
        zh="""
        [引擎|engine|localllm engine|engine 命令] [是什么|怎么用|做什么|是干什么的|有什么用]
        {怎么} [重新编译引擎|编译引擎|更新引擎|重装引擎|编译 llama.cpp|更新 llama.cpp|安装引擎|重建引擎]
        [引擎坏了|引擎找不到|没有引擎|找不到引擎|引擎太旧|缺少引擎|用的是什么引擎|用什么引擎]
        [我想|我要|想|需要] [重新编译|重装引擎|更新引擎|编译带 CUDA 的引擎|重新编译 llama.cpp|升级 llama.cpp|换引擎]
        [引擎] [没有 GPU 支持|启动不了|出错了|过时了|损坏|缺失|不支持 CUDA|的版本|的状态怎么看|在哪|装好了吗|怎么装]
        [查看|检查|看看] [引擎|引擎状态|引擎版本|llama.cpp 版本]
        """,
        en_answers=(
            "The engine is llama.cpp, built for your machine. localllm engine status shows it, and "
            "localllm engine install builds it again.",
        ),
        zh_answers=(
            "引擎就是为你的机器编译的 llama.cpp。localllm engine status 查看它，localllm engine install 重新编译。",
        ),
    ),
    Intent(
        "offline",
        en="""
        {does} {it} [work|run|be used] [offline|without internet|without the internet|without a network|without a connection|in a plane]
        [do I need|does it need|is there a need for|must I have] [internet|the internet|an internet connection|a network|to be online]
        can I use {it} [offline|without internet|on a plane|without wifi|with no network]
        [offline|offline use|no internet|I have no internet|is it offline]
        [I am|I'm|I will be|we are] [offline|without internet|on a plane|in a place without internet|often offline|not connected]
        [is|are] [internet|an internet connection|a connection|the internet|wifi] [needed|required|necessary|a must]
        [can|could] [I|models|the model|localllm|it] [work|run|be used|chat|answer] [when offline|with the cable unplugged|in the mountains|without going online|without being online]
        [what if|what happens when|what happens if] [I am offline|there is no internet|the internet is down|my internet is off|I have no connection]
        [I am|I'm|we are] [often|sometimes|mostly|usually|always] [without a connection|offline|without internet|without wifi|on the road without internet] [|, is that a problem|, does that matter|, is it ok]
        """,
        zh="""
        [能|可以|能不能|支持] [离线使用|离线|离线运行|不联网使用|断网使用|没有网络时用|不上网用] [吗|]
        [需要|要|必须|一定要] [联网|网络|上网|互联网|连网] [吗|]
        [没有网络能用吗|没网能用吗|断网能用吗|离线能用吗|不联网可以吗|离线模式|没有网怎么办]
        [我|这里|电脑|现在] [没有网|没网|断网了|不能上网|没有网络|在飞机上|在火车上] [|，能用吗|，可以用吗|，怎么办]
        [不联网|没有网络|离线|断网|没网] [的时候能跑吗|可以运行模型吗|也能聊天吗|能工作吗|会怎样|行不行]
        [必须|一直要|要不要|是否需要] [联网|连着网|在线|有网络|连接网络] [吗|]
        """,
        en_answers=(
            "Yes. Once a model is downloaded, localllm works without the internet. I, the demo "
            "model, need no download at all.",
        ),
        zh_answers=("可以。模型下载好以后，localllm 不需要联网。我这个演示模型连下载都不用。",),
    ),
    Intent(
        "privacy",
        en="""
        is [it|localllm|my data|this|my chat|this chat] [private|safe|secure|confidential|kept private]
        [where does|where do] [my data|my words|my messages|my chats|my prompts] go
        [do you|does it|does localllm|does this program] [send|upload|collect|share|keep|store|sell] [my data|data|my messages|anything|my chats|telemetry|what I write]
        [who|can anyone|can someone|does anybody] [can read|read|sees|see] [my chats|my messages|what I write|my data|what I type]
        [what about|tell me about] [privacy|my privacy|data protection|my data|telemetry]
        [privacy|is my privacy protected|does my data leave my machine|is there telemetry|are you spying on me]
        [does|do|will] [anyone|anybody|someone|others|the developers|a company|the authors] [see|read|get|have access to|store] [my messages|what I type|my questions|my data|our conversation]
        [is|are] [what I write|my prompts|my messages|my questions|our talk|this conversation] [secret|private|safe with you|recorded|logged|sent anywhere|stored in a cloud|uploaded]
        [do you|does localllm|does it|does this] [spy|track me|phone home|record me|log my chats|use the cloud|use a cloud|leak my data|watch me]
        [I worry about|I care about|I am worried about] [my privacy|privacy|my data|my secrets|data leaks]
        [can|could|does|will] [the company|the author|the maker|some company|the government|a stranger|somebody] [|behind it|behind localllm] [see|read|get|know] [my prompts|my text|what I ask|my questions|what I typed]
        """,
        zh="""
        [我的数据|我的聊天|聊天内容|我说的话|数据|隐私] [安全吗|会上传吗|会泄露吗|去哪里了|有保障吗|会被收集吗|会离开我的电脑吗]
        [你会|它会|localllm 会] [上传我的数据吗|收集数据吗|泄露隐私吗|保存我的聊天吗|偷看吗|发送数据吗]
        [隐私|隐私怎么样|隐私问题|有没有遥测|别人能看到吗|谁能看到我的聊天|谁能看到我写的内容|保护隐私吗|安全吗]
        [你会|它会|软件会|localllm 会] [记录我吗|监视我吗|把数据传出去吗|联网上传吗|偷我的数据吗|把聊天发出去吗|泄密吗|跟踪我吗]
        [我说的|我写的|我输入的|聊天的] [内容|话|东西|文字] [会被记录吗|会发到网上吗|别人能看见吗|会传到云端吗|会不会被上传|保密吗|安全吗]
        [我担心|我在意|我关心] [隐私|数据安全|我的隐私|数据泄露]
        [数据|内容] [在本地吗|会上云吗|存在云端吗|会被别人拿到吗|保密吗]
        """,
        en_answers=(
            "Everything runs on your own machine: what you write does not leave it. The network is "
            "used only to download models.",
        ),
        zh_answers=("一切都在你自己的机器上运行，你写的内容不会离开它。网络只用来下载模型。",),
    ),
    Intent(
        "gpu",
        en="""
        [which|what] [GPUs|graphics cards|GPU|cards|GPU backends|accelerators|backends] [are supported|does it support|work|can I use|do you support]
        {does} {it} [support|work with|use|run on] [CUDA|ROCm|Vulkan|Metal|NVIDIA|AMD|Intel|my GPU|GPUs|a GPU|graphics cards|my graphics card|NVIDIA cards|AMD cards]
        [do you|can you] [support|use] [CUDA|ROCm|Vulkan|Metal|NVIDIA|AMD|GPUs|my graphics card]
        {how} [use|enable|turn on|activate] [my GPU|the GPU|CUDA|GPU acceleration|my graphics card|Vulkan|Metal|ROCm]
        [GPU|CUDA|ROCm|Vulkan|Metal|GPU support|GPU acceleration|graphics card]
        [I have|I own|I've got|my machine has|my PC has] [an NVIDIA card|an AMD card|a GPU|a Radeon|a GeForce|an RTX 4090|an Intel GPU|a graphics card|an RTX 3060]
        [is|are] [NVIDIA|AMD|Intel|Apple|CUDA|Vulkan|Metal|ROCm|my GPU|Radeon cards|GeForce cards] [supported|ok|usable|used|possible|compatible]
        [will|would] [my GPU|my graphics card|an NVIDIA GPU|an AMD GPU|a Radeon|an RTX card] [work|be used|be detected|help|be supported]
        [what|which] [kinds of GPU|brands|graphics cards|video cards|vendors] [does it know|work with it|are usable|can be used]
        """,
        zh="""
        [支持|能用|支持使用|可以用] [CUDA|ROCm|Vulkan|Metal|NVIDIA|英伟达|AMD|显卡|GPU|我的显卡|英特尔显卡|N 卡|A 卡] [吗|]
        [支持|能用] [哪些显卡|什么显卡|哪些 GPU|什么 GPU|哪种显卡]
        {怎么} [用 GPU|使用显卡|启用 GPU|开启 GPU 加速|用上显卡|启用 CUDA|打开显卡加速|用显卡跑]
        [GPU|CUDA|显卡|GPU 加速|显卡支持|GPU 支持|显卡加速]
        [我有|我的是|我用的是|电脑上有] [英伟达显卡|N 卡|A 卡|AMD 显卡|RTX 4090|RTX 3060|英特尔显卡|一张显卡|独立显卡] [|，能用吗|，支持吗|，可以吗]
        [英伟达|N 卡|A 卡|AMD|Intel|苹果|CUDA|Vulkan|ROCm|Metal] [能用吗|可以吗|支持不|行吗|支持得怎么样|可以用吗|能加速吗]
        [我的显卡|显卡|GPU] [能用吗|支持吗|能不能用|会被用到吗|可以加速吗|能发挥作用吗]
        """,
        en_answers=(
            "localllm supports NVIDIA with CUDA, AMD with ROCm, Apple with Metal, and others with "
            "Vulkan. install.sh detects yours and builds the engine for it.",
        ),
        zh_answers=(
            "localllm 支持 NVIDIA（CUDA）、AMD（ROCm）、苹果（Metal），其他显卡可用 Vulkan。install.sh 会检测并为它编译引擎。",
        ),
    ),
    Intent(
        "no_gpu",
        en="""
        [what if|what happens if|and if] [I have|there is|my machine has] [no GPU|no graphics card|only a CPU|just a CPU|no NVIDIA card]
        {does} {it} [work|run] [without a GPU|on a CPU|on CPU only|without a graphics card|with only a CPU|on the CPU|with no GPU]
        [I have|I've got|my laptop has] [no GPU|only a CPU|no graphics card|just a CPU]
        [do I need|is a GPU needed|must I have|is it necessary to have] [a GPU|a graphics card|an NVIDIA card|]
        can I [run|use] [it|models|localllm|a model] [on a CPU|without a GPU|on my CPU|without a graphics card|on an old laptop]
        [CPU only|no GPU|without GPU|cpu mode]
        [there is|my computer has|my PC has|this machine has|my server has] [no GPU|no graphics card|only a processor|no NVIDIA card|only integrated graphics|just a CPU]
        [is|would] [a CPU|the CPU|a processor|a laptop CPU|an old CPU] [enough|sufficient|ok|fast enough|usable]
        [can|could|will|would] [a computer|a machine|a laptop|it|this|models] [without a GPU|with only a CPU|without a graphics card] [run it|work|run models|do it|be used]
        [must I|do I have to|should I] [buy a GPU|own a GPU|have an NVIDIA card|buy a graphics card]
        """,
        zh="""
        [没有|我没有|如果没有|要是没有] [GPU|显卡|独立显卡|英伟达显卡|独显] [怎么办|能用吗|可以用吗|行吗|也能跑吗|]
        [只有 CPU|只用 CPU|纯 CPU|用 CPU] [能用吗|可以吗|行吗|能跑吗|怎么办|运行|能跑模型吗]
        [需要|必须要有|一定要有|非得有] [GPU|显卡|独立显卡] [吗|才能用吗]
        [我的电脑|我的笔记本|服务器|这台机器] [没有显卡|没显卡|没有 GPU|只有 CPU|只有核显|没有英伟达显卡] [|，能用吗|，行吗|，能跑吗|，怎么办]
        [CPU|处理器|核显|老电脑] [够吗|能跑吗|可以跑模型吗|也能用吗|跑得动吗|行不行]
        [非要|一定要|必须] [买显卡|有独显|用 GPU|有显卡] [吗|不可吗|才行吗]
        [不用显卡|不用 GPU|没有独立显卡] [能运行吗|也可以吗|能聊天吗|行吗]
        """,
        en_answers=(
            "A GPU is not needed: llama.cpp runs well on the CPU, only slower. localllm then "
            "chooses a smaller model and the right number of threads.",
        ),
        zh_answers=(
            "没有 GPU 也能用：llama.cpp 在 CPU 上同样能跑，只是慢一些。localllm 会选更小的模型和合适的线程数。",
        ),
    ),
    Intent(
        "memory",
        en="""
        how much [memory|RAM|VRAM] [do I need|is needed|does it need|is required|does a model need|do models need|does a model take|does it use]
        how much [memory|RAM|VRAM] [for|does] [a 7B model|an 8B model|a 70B model|a 13B model|a big model] [|need|take]
        is [8|16|32|4|64|24] [GB|GB of RAM|gigabytes|GB of VRAM|GB of memory] [enough|enough memory|sufficient]
        [do I have|have I] enough [memory|RAM|VRAM]
        [I have|my machine has|my laptop has] [only|] [8|16|32|4] [GB|GB of RAM|gigabytes] [|of memory]
        [memory|RAM|memory requirements|memory use|RAM needed]
        [what|how large|how big] [amount of RAM|memory|RAM|VRAM|must my memory be|should my memory be] [is needed|do I need|should I have|is recommended|is necessary|]
        [how many] [gigabytes|GB|GB of RAM|GB of memory|gigs] [do I need|are needed|does it take|does it use|does a model need|must I have]
        [will|would|does] [8 GB|16 GB|32 GB|4 GB|24 GB] [of RAM|of memory|] [do|suffice|be ok|be enough|work]
        [how much|what] [space in memory|memory|RAM] [is used|does qwen3:8b take|will the model use|does a 7B use|does a 70B model take]
        """,
        zh="""
        [需要|要|得要|占用|会用] [多少|多大] [内存|显存|RAM]
        [8|16|32|4|64|24] [G|GB] [内存|显存|] [够吗|够不够|够用吗|可以吗|能跑吗]
        [7B|8B|70B|13B|大] 模型 [需要多少内存|要多少显存|占多少内存|要多少内存|吃多少内存]
        [内存够吗|内存要求|我的内存够不够|显存够吗|内存占用多少|内存需求]
        [我的电脑|电脑|机器|笔记本] [8G|16G|32G|4G|64G] [内存|的内存|显存] [可以吗|行吗|能用吗|够吗|能跑什么|能跑模型吗]
        [模型|一个 7B 模型|8B 模型|70B|跑模型|运行] [需要多大内存|吃内存吗|要几个 G|占用多大|内存要求是多少|要多大内存|最少要多少内存]
        [几个 G|多少 G|多少 GB] [内存|显存] [够用|才够|可以|才能跑|合适]
        """,
        en_answers=(
            "About the size of the model file plus the context: an 8B model at Q4_K_M takes roughly "
            "6 GB. localllm plan MODEL tells you exactly.",
        ),
        zh_answers=(
            "大约是模型文件的大小加上上下文：8B 模型的 Q4_K_M 大约要 6 GB。localllm plan MODEL 会给出准确数字。",
        ),
    ),
    Intent(
        "slow",
        en="""
        why is [it|the model|localllm|this|generation|my model|everything|the answer|the output] [so slow|slow|very slow|not fast|slower than before|too slow]
        [it is|it's|this is|the model is|generation is|localllm is|my model is] [too slow|very slow|so slow|slow|really slow|slower than expected|lagging]
        [why does it|what makes it|why does the model] [take so long|so slow|run slowly|take ages|respond slowly|answer slowly]
        [slow|slow generation|speed problem|low speed|bad performance|poor performance]
        [it|the model|generation|everything|localllm|the reply] [is crawling|takes ages|takes very long|needs forever|is like a snail|has become slow|got slow|feels slow|is not fast enough|takes minutes]
        [why|how come|what is the reason that] [do I get so few tokens per second|are answers slow|is generation slow|does it take this long|is the speed so low|are you slow|is the reply slow|do I have to wait so long]
        [I wait|I am waiting|I have to wait|I'm waiting] [too long|forever|ages|a long time|minutes for an answer|so long]
        [only|just] [1|2|3|one|two|half a] [token per second|tokens per second|word per second]
        [what can I do|what helps|help] [against low speed|when it is slow|it is so slow|about the speed|if it is too slow]
        it [takes|needs|took] [forever|ages|minutes|very long|so long|too long] [to answer|to reply|to respond|for one sentence|for an answer|to generate|to write]
        [the answer|the reply|every answer|each word] [takes|needs] [forever|ages|minutes|very long|so long|too long]
        """,
        zh="""
        [为什么|怎么|为何|怎么会] [这么慢|很慢|那么慢|这样慢|生成这么慢|跑得这么慢|如此慢|回答这么慢|运行很慢]
        [太慢了|好慢|很慢|速度太慢|速度慢|模型太慢|运行太慢|生成太慢|慢死了|好卡|太卡了|卡] [|怎么办]
        [模型|它|生成|回答|输出|速度] [很慢|太慢|好慢|这么慢|变慢了|为什么慢]
        [等|要等|等了] [很久|半天|好久|太久|好几分钟] [才回答|才有回答|才出结果|才有反应|没反应]
        [回答|生成|输出|出字|模型] [非常慢|慢得要命|慢吞吞|速度很低|特别卡|一个字一个字蹦|变得很慢|太慢怎么办]
        [为什么|怎么] [速度这么低|要等这么久|生成很慢|回答得很慢|每秒只有几个字|跑不快|变慢了|这么卡]
        [每秒只有|一秒才|每秒才] [一个|两个|几个] [token|字]
        [怎么|为什么] [等半天|等这么久|这么久|半天] [才出字|才回答|没有回答|才蹦出一个字|才有结果]
        """,
        en_answers=(
            "Run localllm doctor first: often the GPU is unused, the model spills from GPU memory to "
            "the CPU, or the threads are wrong. A smaller quantization or context helps too.",
        ),
        zh_answers=(
            "先运行 localllm doctor：常见原因是没用上 GPU、模型从显存溢出到 CPU，或者线程数不对。换更小的量化或上下文也有帮助。",
        ),
        en_more="localllm tune MODEL measures the fastest settings, and localllm bench shows how "
        "fast the machine is.",
        zh_more="localllm tune MODEL 会测出最快的设置，localllm bench 会显示机器有多快。",
    ),
    Intent(
        "oom",
        en="""
        [out of memory|it ran out of memory|I ran out of memory|I get out of memory|OOM|memory error|CUDA out of memory]
        [what|what can I do|what do I do|what to do] [if|when] [it runs out of memory|memory is full|I run out of memory|there is not enough memory|the GPU memory is full]
        [the model|it|my model|this model] [does not fit|doesn't fit|is too big|is too large|will not load|fails to load|needs too much memory|does not load]
        [it crashes|it crashed|the model crashes|it was killed|the process was killed|not enough memory|not enough VRAM|VRAM is full]
        [there is|I have|it says there is|it complains about] [not enough memory|too little memory|not enough VRAM|insufficient memory|no memory left|a memory problem]
        [my|the] [memory|RAM|VRAM|GPU memory] [is not enough|is full|is too small|overflows|runs out|is exhausted|was exhausted]
        [the model|loading|it|my program|the server] [fails with out of memory|gets killed|was killed|crashes at start|crashes with a memory error|dies|needs more memory than I have|will not fit]
        [cannot|can not|failed to|unable to|could not] [allocate memory|load the model|allocate|fit the model|allocate a buffer]
        """,
        zh="""
        [内存不足|内存不够|显存不足|显存不够|爆显存|爆内存|内存溢出|内存满了|显存满了|OOM] [|怎么办|了|了怎么办]
        [模型|它|这个模型] [太大了|放不下|装不下|加载不了|加载失败|崩溃了|被杀掉了|闪退] [|怎么办]
        [崩溃了怎么办|跑着跑着就崩了|报内存错误|内存不够用|提示内存不足|显存爆了]
        [加载|运行|启动|模型加载] [时内存不够|时显存不够|时崩溃|时被杀掉|时爆了|报显存不足|提示内存不够|失败，内存不足]
        [内存|显存] [太小|太少|用完了|耗尽了|溢出|爆掉了|不够大|放不下] [|怎么办|，怎么解决]
        [模型] [比内存大|比显存大|太大放不进显存|太大跑不了|超出内存|加载就崩|一加载就崩溃]
        [无法分配内存|分配内存失败|进程被杀|被系统杀掉了|OOM 了]
        """,
        en_answers=(
            "Choose a smaller quantization, a shorter context or fewer GPU layers. localllm plan "
            "MODEL shows what fits before you try.",
        ),
        zh_answers=(
            "选更小的量化、更短的上下文或更少的 GPU 层。localllm plan MODEL 会提前告诉你什么放得下。",
        ),
    ),
    Intent(
        "exit",
        en="""
        {how} [exit|quit|leave|end|close|stop] [the chat|this chat|chat|the program|localllm|this|the conversation|]
        {how} [stop|interrupt|cancel|abort] [the answer|a reply|the reply|generation|an answer|it|the output]
        [exit|quit|how to quit|how to exit|how to leave|let me out|stop]
        [what does|what is] [/bye|ctrl-c|Ctrl+C|control c] [|do]
        {how} get out [|of here|of this|of the chat]
        [I want|I'd like|let me|I need|I wish] [to quit|to exit|to stop|to leave|out|to leave the chat|to end the chat|to close the program|to finish]
        [what|which] [key|command|word] [ends|stops|closes|quits|exits|leaves] [the chat|the program|this|it|the conversation]
        [stop|cancel|interrupt|abort] [talking|the answer|this answer|writing|generating|the generation]
        [how to|can I|how can I] [end|finish|terminate|shut down] [the session|the chat|it|the program|this program]
        [I want to|let me|how do I|I'd like to|can I] [leave|end|quit|close|finish|stop] [this conversation|this chat|our conversation|our chat|the talk|talking to you]
        """,
        zh="""
        {怎么} [退出|离开|结束|关闭|停止|退出去] [聊天|程序|对话|localllm|]
        {怎么} [停止回答|中断回答|打断|停止生成|中止输出|取消回答|让它停下]
        [退出|怎么退|怎么结束|怎么离开|退出聊天|我想退出|停止|停|结束]
        [/bye|Ctrl-C|Ctrl+C] [是什么|做什么|有什么用]
        [我想|我要|想] [退出|离开|结束对话|退出程序|关闭程序|停止聊天|走了怎么退|关掉它|退出去]
        [用什么|按什么|哪个|输入什么] [键|命令|能退出|可以退出|退出|结束|离开]
        [别说了|停下来|不要再说了|停止回答|打断它|让它停|怎么让它闭嘴]
        [对话|聊天|程序] [怎么退出|怎么关|怎么结束|如何退出|怎么终止|怎么关闭]
        [我想|我要|怎么] [关掉|关闭|关了|退掉|结束掉] [聊天|这个聊天|窗口|程序|对话|它]
        """,
        en_answers=(
            "Type /bye to leave the chat. Ctrl-C stops a reply; pressed again, it leaves too.",
        ),
        zh_answers=("输入 /bye 离开聊天。Ctrl-C 会停止当前回答，再按一次也会离开。",),
    ),
    Intent(
        "slash",
        en="""
        [what|which] slash commands [are there|exist|do you have|can I use|work|does the chat have]
        [what|which] commands [are there|can I use|can I type|work] [in the chat|inside the chat|in chat|while chatting]
        [what is|what does|explain] [/help|/clear|/system|/set|/stats|/load|/retry] [|do]
        {how} [clear|reset|forget|restart|empty] [the conversation|the chat|the history|this conversation|everything]
        {how} [retry|repeat|redo|regenerate] [an answer|the last answer|the reply|the answer]
        [slash commands|/help|chat commands|the slash commands|commands in chat]
        [what|which] [special commands|commands with a slash|slash words|/ commands] [are there|exist|work here|can I use|does it know|are available]
        [list|show|tell me|give me|name] [the slash commands|the chat commands|all slash commands|the commands of the chat|the special commands]
        [start|begin] [a new chat|over|a new conversation|from scratch|again with an empty chat]
        [I want|I'd like|let me] [to clear the chat|to start over|a new answer|another answer|to retry|to delete the history|to forget everything]
        [can I|could I] [delete what we said|clear everything|ask again|get another answer|reset the chat]
        """,
        zh="""
        [有哪些|有什么|支持哪些] [斜杠命令|聊天命令|聊天里的命令|聊天中的命令|斜杠指令]
        [聊天时|聊天里|在聊天中|对话中] [能用什么命令|可以用哪些命令|有什么命令|可以输入什么命令]
        [/help|/clear|/system|/set|/stats|/load|/retry|斜杠命令] [是什么|做什么|有什么用|怎么用|有哪些]
        {怎么} [清空对话|清空聊天|重新开始|清除历史|重新回答|重试|重新生成|忘掉前面的对话]
        [聊天|对话|聊天窗口] [里的命令|里的斜杠命令|的特殊命令|里的指令] [有哪些|有什么|怎么用|是什么|列表]
        [斜杠|/] 开头的 [命令|指令] [是什么|怎么用|有什么|都有啥]
        [我想|我要|想] [清空|重新开始|再来一次|换一个回答|忘掉之前的|重新聊|开始新对话|重新生成回答]
        [新对话|开新对话|换个话题重新开始|再回答一次|清除上下文]
        """,
        en_answers=(
            "In the chat you can use /help, /clear, /system, /set, /save, /load, /retry, /stats and /bye.",
        ),
        zh_answers=(
            "聊天里可以用 /help、/clear、/system、/set、/save、/load、/retry、/stats 和 /bye。",
        ),
    ),
    Intent(
        "multiline",
        en="""
        {how} [write|type|enter|send|paste|input] [several lines|multiple lines|many lines|a long text|more than one line|a multi-line message|code with several lines|a paragraph]
        {how} [make|insert|add|type] a [new line|newline|line break]
        [multi-line input|multiline|multi line|several lines|is there multi-line input]
        [I want|I'd like|I need|let me] [to write several lines|to send a long text|to paste code|to paste several lines|to enter many lines|a new line|to write a paragraph|to type a poem with many lines]
        [Enter|the enter key|return|pressing enter] [sends the message|sends it too early|sends immediately|does not make a new line]
        [can a|may a|could a] message [have several lines|be longer than one line|contain line breaks|span multiple lines]
        [long|multi-line|multiline|several line] [messages|text|input|questions|prompts]
        """,
        zh="""
        {怎么} [输入多行|写多行|发送多行|换行|粘贴多行文本|输入好几行|输入多行文字|写很长的内容|插入换行]
        [多行输入|多行|怎么换行|支持多行吗|能输入多行吗|可以换行吗|如何分行]
        [我想|我要|想|需要] [输入多行|写一大段|发多行消息|粘贴代码|粘贴一段文字|输入一段代码|分几行写|发一篇长文]
        [回车|按回车|一按回车] [就发送了|就发出去了|怎么换行|不换行]
        [一条消息|消息|输入] [可以有多行吗|能有几行吗|能换行吗|支持多行吗|可以分行吗|怎么写多行]
        [长文本|大段文字|多行文本|多行代码] [怎么输入|怎么发|怎么粘贴|如何输入]
        """,
        en_answers=(
            'Start with """ and end with """: everything between is one message of several lines.',
        ),
        zh_answers=('用 """ 开头，再用 """ 结尾，中间的多行就是一条消息。',),
    ),
    Intent(
        "session",
        en="""
        {how} [save|keep|store|remember] [a chat|the chat|this chat|a conversation|my conversation|the session|a session|this session|the history]
        {how} [continue|load|resume|restore|reopen|open] [a chat|an old chat|an earlier conversation|a session|a saved session|my last chat|yesterday's chat]
        [what is|what are|explain] [a session|sessions|/save|--session]
        [are|is] [my chats|the chat|conversations|the history] [saved|kept|stored|remembered]
        [save session|session|save the chat]
        [I want|I'd like|I need] [to save this chat|to keep the conversation|to continue an old chat|to go on tomorrow|my old chats|to load a session|to store our talk|to remember this chat]
        [can I|could I|may I|is it possible to] [save this|go on tomorrow|continue later|store this chat|keep this conversation|open an older chat|resume our conversation|load my chat again]
        [will you|do you|will it|does localllm] [remember this tomorrow|save chats|keep our conversation|remember our chat|store conversations|save my history]
        [where are|what about|how about] [my saved chats|my old conversations|the chat history|saved sessions|sessions]
        """,
        zh="""
        {怎么} [保存聊天|保存对话|保存会话|存下对话|保存聊天记录|记住对话|保留聊天记录]
        {怎么} [继续上次的聊天|恢复会话|加载会话|打开以前的对话|接着上次聊|读取会话|继续以前的对话]
        [会话|session|/save|--session] [是什么|怎么用|有什么用|保存在哪]
        [聊天记录会保存吗|对话会保存吗|聊天记录在哪|会保存我的对话吗]
        [我想|我要|想] [保存这次聊天|把聊天存起来|明天接着聊|继续以前的聊天|保存对话记录|留下聊天记录|存档|读取存档]
        [可以|能|能不能] [保存聊天吗|存档吗|以后接着聊吗|保存会话吗|恢复以前的聊天吗|下次继续吗|导出聊天吗]
        [下次|明天|以后] [还能继续吗|能接着聊吗|怎么继续|怎么接着聊|你还记得吗]
        [以前的聊天|历史记录|聊天历史|旧对话] [在哪|怎么找回|怎么打开|怎么加载|能看吗]
        """,
        en_answers=(
            "Type /save NAME in the chat, or start with localllm chat MODEL --session NAME. /load "
            "NAME brings it back.",
        ),
        zh_answers=(
            "在聊天里输入 /save 名字，或用 localllm chat MODEL --session 名字 启动。/load 名字 可以取回。",
        ),
    ),
    Intent(
        "pipe",
        en="""
        {how} ask [one|a single|just one] question [|from the shell|on the command line|from a script]
        {how} use {it} [in a script|in a pipe|from a shell script|from the shell|non-interactively|from bash|in a shell pipeline]
        {how} [pipe|send|feed|pass|give] [a file|text|a document|standard input|stdin|the output of a command] [to it|to the model|to localllm|into localllm]
        [what is|what does|explain] [-p|the -p option|the -p flag|--prompt] [|do]
        [pipe|stdin|standard input|scripting|one question only]
        [I want|I'd like|I need] [to ask one question only|to use it in a script|to use it from bash|to pipe text into it|just one answer|an answer without a chat|to automate it]
        [can I|could I|may I|does it] [call it from a script|use it in bash|use pipes|use stdin|work in a pipe|read from a pipe|read stdin|summarise a file from the shell|run it without a chat]
        [ask|send] [a question|one question|a single prompt|a prompt] [directly|from the terminal|without opening the chat|in one line|and exit]
        [shell|bash|script|automation|cron job|command line question|one shot]
        """,
        zh="""
        {怎么} [在脚本里使用|在脚本里用|用管道|从管道输入|在命令行直接提问|只问一个问题|把文件传给模型|把文件交给模型|用标准输入]
        [-p|-p 选项|-p 参数|管道|标准输入] [是什么|怎么用|做什么|有什么用|能用吗|支持吗]
        [支持管道吗|可以用在脚本里吗|能不能在命令行提问|一次性提问]
        [我想|我要|想] [只问一句|写脚本用|在 bash 里用|用管道传文本|在终端里直接问|自动化|批量提问|一句话提问]
        [能|可以|能不能] [在脚本里调用吗|从 stdin 读吗|接管道吗|一行命令提问吗|不进聊天直接问吗|读标准输入吗|在 shell 里用吗]
        [脚本|shell|bash|命令行] [怎么用|里怎么提问|怎么调用|调用|里怎么用它]
        [不进入聊天|不打开聊天|直接在命令行] [提问|问一个问题|能问吗|怎么提问]
        """,
        en_answers=(
            'Use -p: localllm chat MODEL -p "your question". Text from standard input is added to '
            "it, so pipes work.",
        ),
        zh_answers=(
            '用 -p：localllm chat MODEL -p "你的问题"。标准输入的内容会接在后面，所以可以用管道。',
        ),
    ),
    Intent(
        "json",
        en="""
        {how} [get|print|have|produce] [JSON|JSON output|machine readable output|output as JSON|the result as JSON]
        [is there|do you have|does it have] [JSON output|a JSON mode|machine readable output|a --json option]
        [what is|what does|explain] [--json|the --json option|the json flag] [|do]
        {how} [read|parse|use] the output [in a program|with a program|from a script|with jq]
        [JSON|json output|--json]
        [I want|I'd like|I need] [JSON|JSON output|the output as JSON|structured output|output for a program|to parse the output|to process the output]
        [can|could|does|will] [it|localllm|the output|doctor|plan] [print JSON|be JSON|be parsed|give JSON|be machine-readable|speak JSON|be read by a program]
        [output|result|print] [in JSON|for programs|for machines|as a JSON document|in a structured form]
        [which|what] [option|flag|switch] [gives|prints|makes|for] JSON [|output]
        """,
        zh="""
        {怎么} [输出 JSON|得到 JSON|用程序读取输出|解析输出|以 JSON 格式输出|打印 JSON]
        [--json|JSON 输出|JSON] [是什么|怎么用|有什么用|支持吗|有吗]
        [支持 JSON 吗|有 JSON 输出吗|能输出 JSON 吗|可以输出机器可读的格式吗]
        [我想|我要|想|需要] [JSON 格式|JSON 输出|机器可读的输出|结构化输出|用程序处理输出|解析结果|让程序读结果]
        [结果|输出|doctor 的结果|plan 的结果] [能是 JSON 吗|怎么变成 JSON|可以解析吗|能用 JSON 吗|给程序用|怎么用程序读]
        [哪个选项|什么参数|怎样] [输出 JSON|得到 JSON|打印 JSON|可以输出 JSON]
        """,
        en_answers=(
            "Add --json to commands like doctor, plan or list. They then print one JSON document on "
            "standard output.",
        ),
        zh_answers=(
            "给 doctor、plan、list 等命令加上 --json，它们就会在标准输出打印一个 JSON 文档。",
        ),
    ),
    Intent(
        "codes",
        en="""
        [what are|which are|explain|list|tell me] [the exit codes|exit codes|the return codes|the exit status codes]
        what does exit code [1|2|3|4|5|6|7|8|9|130] mean
        what does [exit status|return code|exit code] [0|3|5|7|9|one|two] [mean|stand for]
        [exit codes|exit code|return code|error codes|exit status|which exit code does it return]
        [it|the program|localllm|the command] [exited with|returned|ended with|failed with|gave me|returns] [code|status|exit code|the code|exit status] [1|2|3|4|5|6|7|8|9|130]
        [what|which] [codes|exit status|return values|status codes|numbers] [can it return|does it return|are there|does it use|does it exit with]
        [the meaning of|explain|what is] [exit code|code|status|return code|exit status] [1|2|3|4|5|6|7|8|9|130]
        [how do I know|how can a script know] [if it failed|whether it worked|if a command failed|what went wrong]
        """,
        zh="""
        [退出码|返回码|退出状态|错误码] [有哪些|是什么|是什么意思|是什么含义|怎么看|分别代表什么]
        [退出码|返回码] [0|1|2|3|5|6|7|8|9|130] [是什么意思|是什么|代表什么|表示什么]
        [解释一下|列出|说明] [退出码|返回码|错误码]
        [程序|命令|它|localllm] [返回了|退出码是|返回|退出时返回|以] [1|2|3|4|5|6|7|8|9|130] [|，什么意思|是什么意思|，为什么]
        [退出码|返回码|返回值|退出状态] [都有哪些|的含义|的意思|一览|列表|表示什么|怎么理解|说明]
        [脚本怎么知道失败了|怎么判断命令成功|怎么知道命令失败了|怎么判断出错]
        """,
        en_answers=(
            "0 ok, 1 failure, 2 usage, 3 not found, 4 not authorised, 5 network, 6 integrity, 7 does "
            "not fit, 8 disk, 9 broken engine, 130 interrupted.",
        ),
        zh_answers=(
            "0 成功，1 失败，2 用法错误，3 找不到，4 没有权限，5 网络，6 完整性，7 放不下，8 磁盘，9 引擎损坏，130 被中断。",
        ),
    ),
    Intent(
        "licence",
        en="""
        [what is|what's|which is|tell me] the [licence|license] [|of localllm|of this program|of this software]
        [is it|is localllm|is this] [free|open source|free software|opensource|free to use|MIT licensed|for free]
        [what does it cost|how much does it cost|what is the price|do I have to pay|must I pay|is there a fee|does it cost anything|how much is it]
        [can I|may I] use {it} [at work|commercially|in my company|for business|for free|in a product]
        [under which|under what] [licence|license] [is it|is localllm] [|released|published]
        [licence|license|price|cost]
        [is|are] [there|it|this] [costs|expensive|a paid program|a subscription|cheap|free of charge|costing money|gratis|a trial]
        [may|can|could] [we|I|my company|our company|a business] [use it|use localllm|sell it|modify it|use it for work|change the code|use it for money]
        [where is|can I see|can I read|can I change] [the source code|the source|the code|your source]
        [what|which] [rights do I have|licence does it use|license applies|terms apply|does it cost|is the price of localllm]
        [may|can|could] I [use|sell|ship|put|include] [it|localllm|this] in [a commercial product|my product|my company|a business|commercial software|our product]
        """,
        zh="""
        [许可证|授权|协议|许可协议|开源协议|开源许可证] [是什么|是哪个|是什么类型|]
        [localllm|它|这个软件|] [开源吗|免费吗|收费吗|要钱吗|多少钱|需要付费吗|是免费的吗|是开源的吗|要付钱吗]
        [可以|能] [商用吗|用于公司吗|免费使用吗|用在商业项目里吗|商业使用吗]
        [用的是什么许可证|什么许可证|价格是多少|价格|费用|使用什么协议]
        [用它|这个软件|使用它|localllm|它] [花钱吗|要花钱吗|收钱吗|是付费的吗|免费不|贵不贵|要买吗|有试用期吗|要订阅吗]
        [我|公司|企业|我们公司] [可以商用吗|能用吗|能免费用吗|用要付费吗|能修改代码吗|可以卖吗|能用在产品里吗]
        [源代码|代码|源码] [公开吗|在哪里|能看吗|能改吗|可以修改吗|开放吗]
        """,
        en_answers=("localllm is free and open source, under the MIT licence.",),
        zh_answers=("localllm 是免费的开源软件，采用 MIT 许可证。",),
    ),
    Intent(
        "rivals",
        en="""
        [how does|how does it] [localllm|] compare [to|with] [ollama|LM Studio|others|vllm|other tools|other runners]
        what is the difference [between localllm and|to|from|with] [ollama|LM Studio|others|vllm|other programs]
        [is it|is localllm] [better|faster|worse|easier] than [ollama|LM Studio|others|vllm|other runners]
        [why not|why not use|why not just use] [ollama|LM Studio|vllm]
        [ollama|LM Studio|localllm or ollama|ollama or localllm|what about ollama|what about LM Studio|do you know ollama]
        [localllm versus|localllm vs] [ollama|LM Studio]
        [I use|I know|I like|I have been using|currently I use] [ollama|LM Studio|vllm|another program] [|already|so far|at the moment]
        [what|how] [about|is] [ollama|LM Studio|vllm|other runners|the competition] [different|better|worse|compared to this|compared with localllm|]
        [should I|shall I|why should I] [switch from ollama|use ollama or localllm|leave ollama|use ollama|replace ollama|prefer it to ollama|use LM Studio]
        [localllm|it|this] [and|or|against|compared to] [ollama|LM Studio|vllm]
        """,
        zh="""
        [和|跟|与] [Ollama|LM Studio|别的工具|其他工具|vLLM|同类软件] [有什么区别|比怎么样|有什么不同|相比如何|哪个好|比哪个好|一样吗]
        [比|会比] [Ollama|LM Studio|vLLM] [好吗|快吗|强吗|更好吗|好在哪]
        [Ollama|LM Studio] [怎么样|呢|和 localllm 的区别|好还是 localllm 好|和 localllm 选哪个|你知道吗]
        [为什么不用|为什么不直接用] [Ollama|LM Studio]
        [我用|我在用|我已经用|我一直用] [Ollama|LM Studio|vLLM|别的软件] [|，要换吗|，为什么要换|，区别在哪|，你们有什么优势]
        [Ollama|LM Studio|vLLM] [更好吗|和你们比|比你们好吗|跟这个比呢|和它有啥区别|有啥不一样|与 localllm 的不同]
        [localllm|它|这个] [和|跟|与|比起|相对于] [Ollama|LM Studio] [的区别|如何|呢|的差别|哪里不同|有啥不同]
        [我已经|我一直|我们|我现在] [在用|用着|用的是|用] [Ollama|LM Studio|vLLM] [了|] ，[有什么不一样|有什么不同|有区别吗|还要换吗|你们好在哪]
        """,
        en_answers=(
            "Ollama and LM Studio are good programs that also run GGUF models. localllm puts its "
            "effort into exact plans before the download, measured tuning and reasons for each setting.",
        ),
        zh_answers=(
            "Ollama 和 LM Studio 也是运行 GGUF 模型的好软件。localllm 更注重下载前的精确规划、实测调优，以及每个设置的理由。",
        ),
    ),
    Intent(
        "store",
        en="""
        where [are|are the|does it keep|does it store|does localllm keep|does localllm store|can I find] [models|the models|my models|model files|the files|downloads]
        where are [models|my models|the models|model files|the files|downloads] [kept|stored|saved|located|on my disk]
        {how} [change|move|set] [the folder|where models are kept|the model folder|the directory|the storage folder|the location of models]
        {how} [store|keep|put] models [on another disk|somewhere else|in another folder|on an external drive]
        [what is|what does|explain] LOCALLLM_HOME [|do]
        [which|what] [folder|directory] [does it use|is used|holds the models]
        [I want|I'd like|I need] [to move my models|the models on another disk|to know where the models are|to change the folder|to find the files|to put models elsewhere]
        [the|my] [models|files|downloads|data] [should be on another disk|should go elsewhere|are where|are in which folder|lie where|go where]
        [can I|could I|is it possible to] [move the models|change the location|choose the folder|use another disk|store models on D|keep models on a USB disk]
        [location|path|folder|directory] of [the models|models|my models|the files|downloaded files]
        """,
        zh="""
        [模型|文件|下载的模型|下载的文件|模型文件] [放在哪里|存在哪里|保存在哪|在哪个目录|放哪了|在哪里|存放在哪|下载到哪里]
        {怎么} [修改模型目录|换目录|改存放位置|把模型放到别的盘|更改存储位置|把模型存到别的硬盘|设置模型目录]
        [LOCALLLM_HOME|模型目录|存储目录] [是什么|怎么设置|有什么用|在哪|在哪里]
        [我想|我要|想] [换个目录|把模型移到别处|改模型位置|知道模型在哪|找到模型文件|把模型放到 D 盘|移动模型]
        [模型|文件|数据] [的位置|的路径|的目录|在什么地方|在哪个文件夹|在硬盘的哪里|存储位置|保存路径] [|是什么|在哪|怎么改]
        [可以|能|能不能] [换存储位置吗|移动模型吗|放到移动硬盘吗|改目录吗|自定义目录吗]
        """,
        en_answers=(
            "Models are kept in your user data folder. Set LOCALLLM_HOME to move everything to "
            "another place.",
        ),
        zh_answers=("模型保存在你的用户数据目录里。设置 LOCALLLM_HOME 可以把所有东西放到别处。",),
    ),
    Intent(
        "alias",
        en="""
        [what is|what's|what does|explain] [qwen3:8b|an alias|a catalogue alias|the catalogue|a short name|qwen3:4b] [|mean]
        [which|what] [aliases|short names|model names] [are there|exist|can I use|work]
        what do I [write|type|put] [for|instead of|as] MODEL
        {how} [name|write|refer to|specify] a model
        [what is|what counts as|what can be] [MODEL|a model reference|a model name]
        [alias|aliases|the catalogue|model names|model reference]
        [what|which] [names|ways|forms] [can a model have|of naming a model are there|are allowed|does it understand|are valid|can I give]
        [how do I|how should I|how can I] [say which model I want|tell it the model|name the model|write the model name|spell the model|specify which model]
        [the|a] [model argument|name of a model|model name|name qwen3:8b|model parameter] [|means what|looks how|is what]
        [what|explain] [is meant by MODEL|does MODEL mean|goes in the place of MODEL|should MODEL be|can I put as MODEL|is the model argument]
        """,
        zh="""
        [qwen3:8b|别名|模型别名|模型目录别名|qwen3:4b] [是什么|是什么意思|怎么用|有哪些]
        [MODEL|模型名|模型名字|模型名称] [写什么|怎么写|填什么|是什么|该写什么|可以是什么]
        {怎么} [写模型名|指定模型|引用模型|表示模型]
        [有哪些别名|能用哪些名字|模型参数填什么]
        [模型|MODEL] [的写法|参数怎么写|有几种写法|的名字怎么写|参数是什么|指什么|的格式|可以怎么写|要写成什么样]
        [我该|我要|应该] [怎么写模型|怎么告诉它用哪个模型|写什么模型名|用什么名字|怎么指定哪个模型]
        [短名字|简称|短名|模型的别名|目录里的名字] [有哪些|是什么|怎么用|能用哪些]
        """,
        en_answers=(
            "A model can be named by an alias of the catalogue like qwen3:8b, a reference like "
            "org/repo:QUANT, a URL, a path to a file, or demo.",
        ),
        zh_answers=(
            "模型可以用目录里的别名（如 qwen3:8b）、org/repo:QUANT 这样的引用、网址、文件路径，或者 demo 来表示。",
        ),
    ),
    Intent(
        "hub",
        en="""
        {how} [use|run|download|get|load|pull] [a model from|models from|something from] [Hugging Face|huggingface|the hub|the Hugging Face hub|HF]
        {does} {it} [support|work with|use] [Hugging Face|huggingface|the hub|HF]
        [what is|what does|explain] [org/repo:QUANT|org/repo|a Hugging Face reference|the hf prefix|hf:] [|mean]
        {how} [choose|pick|select|give] [the quantization|a quantization|a quant] [when downloading|in the name|from Hugging Face]
        [Hugging Face|huggingface|hf|the hub]
        [I want|I'd like|I need] [a model from Hugging Face|to use the hub|to use a Hugging Face model|to run a model from huggingface|a GGUF from Hugging Face]
        [can|could|does] [it|localllm|I] [load|run|fetch|take|use|find] [models from Hugging Face|Hugging Face models|a huggingface repo|things from the hub|a repository on Hugging Face]
        [I found|there is|I saw|I have found] [a model on Hugging Face|a GGUF on huggingface|a repo on the hub|a nice model on Hugging Face]
        [the name|a name|the syntax|how to write the name] [of a Hugging Face model|of a hub model|for Hugging Face|with org and repo]
        """,
        zh="""
        {怎么} [用 Hugging Face 的模型|从 Hugging Face 下载|下载 Hugging Face 模型|使用 HF 上的模型|从 huggingface 下载模型]
        [支持|能用|可以用] [Hugging Face|huggingface|HF] [吗|上的模型吗|]
        [org/repo:QUANT|Hugging Face|HF|hf 引用] [是什么|是什么意思|怎么写|怎么用]
        [我想|我要|想] [用 Hugging Face 的模型|跑 HF 上的模型|从 HF 拉模型|下载 huggingface 的模型|用 HF 仓库|运行 Hugging Face 的模型]
        [Hugging Face|HF|huggingface] [的模型怎么用|上的模型怎么跑|的仓库怎么写|能下载吗|能直接用吗|的模型能用吗|怎么写名字|的引用怎么写]
        [我在 Hugging Face 找到一个模型|我在 HF 看到一个模型|Hugging Face 上有个 GGUF] [|，怎么用|，怎么跑|，怎么下载]
        """,
        en_answers=(
            "Write org/repo:QUANT, for example localllm chat Qwen/Qwen3-8B-GGUF:Q4_K_M. Without QUANT "
            "localllm chooses the best one that fits.",
        ),
        zh_answers=(
            "写成 org/repo:QUANT，例如 localllm chat Qwen/Qwen3-8B-GGUF:Q4_K_M。不写 QUANT 时，localllm 会选放得下的最好的一个。",
        ),
    ),
    Intent(
        "modelscope",
        en="""
        {how} [use|download from|get models from|pull from] [ModelScope|a mirror|modelscope]
        {does} {it} [support|work with|use] [ModelScope|modelscope|mirrors|a mirror]
        [what is|explain|tell me about] [ModelScope|ms:|the ms prefix|modelscope]
        [I cannot reach Hugging Face|Hugging Face is blocked|huggingface is blocked here|Hugging Face is too slow|I am in China]
        [modelscope|mirror]
        [I live|I am|we are|I'm] in China [|and cannot reach Hugging Face|, how do I download|and downloads fail]
        [is|are] [ModelScope|mirrors|a mirror|modelscope|Chinese mirrors|other sources] [supported|possible|available|usable|there]
        [Hugging Face|the hub|huggingface] [does not work here|is not reachable|cannot be reached|times out|is down|is blocked for me|is unavailable]
        [another|a different|an alternative] [source|download source|site|server] [for models|than Hugging Face|to download from|]
        """,
        zh="""
        {怎么} [用魔搭|从魔搭下载|使用 ModelScope|从 ModelScope 下载|用镜像|使用镜像下载|用国内镜像]
        [支持|能用|可以用] [魔搭|ModelScope|镜像|国内镜像|魔搭社区] [吗|]
        [魔搭|ModelScope|ms:] [是什么|怎么用|是什么意思]
        [连不上 Hugging Face|上不了 Hugging Face|Hugging Face 打不开|国内怎么下载|在国内怎么下载模型|Hugging Face 太慢] [|怎么办]
        [国内|在中国|我在国内|大陆] [能下载吗|下载很慢|用什么源|怎么下模型|怎么用|有什么办法下载|从哪下载]
        [Hugging Face|huggingface|HF] [连不上|被墙了|很慢|超时|下载不动|下载失败|无法访问|上不去] [|，怎么办|，换什么源]
        [魔搭|ModelScope|镜像站|国内源] [能用吗|怎么下载|支持吗|怎么写|的模型怎么下|上的模型怎么用|可以下载吗]
        """,
        en_answers=(
            "Put ms: before the name to download from ModelScope: localllm pull ms:org/repo:QUANT.",
        ),
        zh_answers=("在名字前加 ms: 就会从魔搭下载：localllm pull ms:org/repo:QUANT。",),
    ),
    Intent(
        "local_file",
        en="""
        {how} [use|run|load|open|chat with] [a file|a local file|a GGUF file|my own file|a gguf file that I have|a model file|a downloaded file|a file on my disk]
        [can I|may I] use [my own|a local|an existing|an already downloaded] [file|GGUF|GGUF file|model file|model]
        [I already have|I have] [a GGUF file|a model file|a gguf|a file on my disk]
        [I want|I'd like|I need] [to run a file|to use my own file|to load a GGUF|to open a local model|to use a local model|to run my own model file]
        [the|my] [model|file|GGUF|model file] is [already on my disk|here on my computer|in my downloads folder|on a USB stick|already downloaded|in this folder]
        [does it|can it|could it|will it] [load local files|open a file|run a GGUF from disk|use my file|accept a path|take a path|run a file directly]
        [how about|what about] [a local file|my own GGUF|a file path|my own model|local models]
        """,
        zh="""
        {怎么} [用本地文件|运行本地模型文件|加载本地文件|使用自己的 GGUF 文件|打开 GGUF 文件|运行我的模型文件|加载 GGUF 文件]
        [能用|可以用] [自己的模型吗|本地文件吗|已经下载的文件吗|自己的 GGUF 吗|我自己的模型文件吗]
        [我已经有|我有] [一个 GGUF 文件|模型文件|一个模型文件]
        [我想|我要|想] [用本地模型|加载本地文件|跑自己的文件|用自己的模型|打开一个本地模型|运行下载好的文件|用硬盘里的模型]
        [模型|文件|GGUF] [已经在我电脑上|在本地|在硬盘里|已经下好了|在下载文件夹里] [|，怎么用|，怎么运行|，怎么加载]
        [本地|自己的|现成的] [模型|文件|GGUF] [怎么用|怎么跑|能跑吗|怎么加载|怎么打开|可以直接用吗]
        """,
        en_answers=(
            "Give the path: localllm chat ./model.gguf. The same works for serve and plan.",
        ),
        zh_answers=("直接写路径：localllm chat ./model.gguf。serve 和 plan 也一样。",),
    ),
    Intent(
        "which_model",
        en="""
        [which|what] model [should I use|should I choose|is best|is the best|do you recommend|is good|to use|to choose|should I download|suits me]
        [recommend|suggest] [|me] [a model|a good model|some models|one]
        {how} [choose|pick|select|find] [a model|a good model|the right model|the best model]
        what is the best model [|for me|for my machine|for chat|for coding|to start with]
        [which model|best model|good model|model recommendation]
        [I need|I want|I'd like|give me|I'm looking for] [a model recommendation|advice on models|a good model|a suggestion|a model that fits me|the best model|a recommendation]
        [what|which] [model would you take|model do people use|model is right for me|model fits my machine|model suits a laptop|one should I take|is your favourite model|model should a beginner use]
        [I am not sure|not sure|I can't decide|I have no idea] [which model to use|what model to take|which model is good|which model to choose|about the model]
        [best|good|strongest|nicest] [model for 16 GB|model for a laptop|model for beginners|model for chat|model for a small machine|model right now|local model]
        """,
        zh="""
        [该用|应该用|选|用|推荐|应该选|该选] [哪个|什么|哪种] 模型 [|好]
        [推荐|建议] [一个模型|个模型|几个模型|一款模型|模型]
        [哪个模型|什么模型|哪款模型] [好|最好|适合我|比较好|最合适|值得用|最强]
        {怎么} [选模型|挑模型|选择模型|挑选合适的模型]
        [我该|我应该|我|新手] [用哪个模型|选什么模型|下载哪个模型|从哪个模型开始|选哪款|用什么模型好|选哪个模型合适]
        [有什么|有没有] [推荐的模型|好的模型|适合我的模型|合适的模型|好用的模型] [|吗]
        [不知道|不确定|拿不准] [用哪个模型|选什么模型|下载哪个|哪个模型合适|用什么模型]
        [笔记本|16G 内存|小内存|我的机器|家用电脑] [用什么模型|适合什么模型|选哪个模型|跑什么模型好|推荐哪个模型]
        """,
        en_answers=(
            "Take the largest model that fits your memory at Q4_K_M: qwen3:8b is a good start on a "
            "normal machine. localllm plan MODEL says whether it fits.",
        ),
        zh_answers=(
            "选内存放得下的最大的 Q4_K_M 模型：普通机器可以从 qwen3:8b 开始。localllm plan MODEL 会告诉你放不放得下。",
        ),
    ),
    Intent(
        "bugs",
        en="""
        {how} [report|file|send|submit] [a bug|an issue|a problem|an error|bugs]
        [I found|there is|I have found|I think I found] [a bug|an error|a problem in localllm|a defect]
        {how} [debug|see the traceback|see more details|get more details|find the cause of an error|see the full error]
        [I get an error|there was an error|what does this error mean|an error occurred|I see an error message|it shows an error]
        [where can I|where do I] [get support|report bugs|ask for help|find help]
        [bug|bug report|error|debug]
        [something|it|the program|localllm] [crashed|broke|shows an error|went wrong|failed with an error|is buggy|behaves strangely|gives an error]
        [whom|where|who|how] [do I tell about a bug|can I complain about a bug|do I contact|should I report errors|do I open an issue|can I get help|to report an error]
        [I want|I'd like|I need] [to report a bug|to file an issue|to report an error|more details|to see the traceback|to debug|support|the full error message]
        [is there|where is] [a debug mode|a bug tracker|a log|an issue tracker|support|a forum]
        [something|it|the program|localllm|the server] [crashed|failed|broke|went wrong|stopped with an error], [whom do I tell|where do I report it|what should I do|who can help|how do I report it|what now]
        """,
        zh="""
        {怎么} [报告问题|报告错误|提交 bug|反馈问题|报 bug|提交问题|反馈 bug]
        {怎么} [调试|查看详细错误|看到完整的错误|排查错误|找出错误原因|看错误详情]
        [我发现一个 bug|有个错误|报错了|出错了|发现问题了|遇到错误|我遇到了错误|我发现了问题|有 bug] [|怎么办]
        [程序|软件|它|命令] [崩了|有 bug|出错|报错|出了错误|显示错误|抛异常|有缺陷|行为奇怪] [|怎么办|，怎么反馈|，怎么报告|，怎么查]
        [我想|我要|想] [报告一个 bug|反馈问题|提 bug|看详细的错误|调试一下|提个问题|看日志|报告错误]
        [去哪|在哪|向谁|哪里] [反馈|反馈问题|报告 bug|提问题|求助|看日志|报告错误|提交 issue]
        [调试模式|错误日志|详细日志|bug 反馈|错误信息]
        [发现|遇到|碰到] [了|] [一个|] [错误|bug|问题|故障|缺陷] ，[去哪里反馈|去哪报告|怎么反馈|找谁|跟谁说|怎么报告]
        """,
        en_answers=(
            "Run the command again with --debug to see the details. For a bug report, attach what "
            "localllm doctor --report prints.",
        ),
        zh_answers=(
            "加上 --debug 再运行一次命令可以看到详情。报告问题时，请附上 localllm doctor --report 的输出。",
        ),
    ),
)
