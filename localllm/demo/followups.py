"""What a conversation is made of besides questions: more of the same, names, JSON, tools.

Data only, in the notation of intents.py, except that `<name>` and `{}` are filled by corpus.py.
"""
# ruff: noqa: E501 - one way of asking per line, however many words there are for it

from __future__ import annotations

__all__ = [
    "AGAIN",
    "ASK_NAME",
    "IN_JSON",
    "JSON_KEYS",
    "MORE",
    "NAME_IS",
    "NAME_WAS",
    "NICE",
    "NO_MORE",
    "NO_NAME",
    "OTHER_TONGUE",
    "SYSTEM",
    "TOOLS",
]

MORE = {
    "en": """
    [tell|show] me more [|about it|about that|about this|please]
    [go on|continue|keep going|more|and then|what else|anything else|more details|details please]
    [can|could] you [explain|elaborate|say more|go on|tell me more|explain more|explain that]
    [explain|elaborate] [further|more|that|a bit more|in more detail|on that]
    [why|how|how so|why is that|why so|really|how exactly|in what way|such as|for example]
    [give|show] me [an example|more details|more information|some details|details]
    [I want to know more|what does that mean|I'd like to hear more|is that all]
    """,
    "zh": """
    [再多说一点|多说点|继续|继续说|还有呢|然后呢|说详细点|详细说说|再详细一点|还有什么|还有吗|接着说]
    [能|可以] [详细解释吗|多说一点吗|举个例子吗|再解释一下吗|具体说说吗|说得详细些吗]
    [为什么|为什么呢|怎么说|真的吗|具体一点|举个例子|比如呢|比如说|详细介绍一下|展开讲讲|就这些吗|请继续]
    [我想知道更多|我想多了解一点|这是什么意思|更多信息|多告诉我一些]
    """,
}
NO_MORE = {
    "en": "That is all I know about it, I am a tiny demo model. Ask me something else about "
    "localllm, or see localllm --help.",
    "zh": "我只知道这些，我是一个很小的演示模型。可以问我 localllm 的其他问题，或查看 localllm --help。",
}
AGAIN = {
    "en": """
    [can you|could you|please|] [repeat|say] [that|it|this] [again|once more|one more time|]
    [repeat|once more|say it again|what did you say|come again|pardon|I did not hear you|repeat your answer]
    [what was that|I missed that|sorry what|please repeat your last answer]
    """,
    "zh": """
    [再说一遍|重复一遍|再说一次|请再说一遍|你刚才说什么|你说什么|没听清|重复一下|能再说一遍吗]
    [刚才说的是什么|请重复你的回答|没听清楚，再说一遍|重说一遍|再讲一遍]
    """,
}
OTHER_TONGUE = {  # asked in the one language, answered in the other
    "en": """
    [in Chinese|in Chinese please|say it in Chinese|say that in Chinese|and in Chinese|now in Chinese]
    [can you say that in Chinese|please answer in Chinese|translate that into Chinese|answer in Chinese]
    """,
    "zh": """
    [用英文说|用英语说一遍|英文怎么说|请用英文回答|用英语回答|请用英语再说一遍|换成英文|英文版呢|翻译成英文]
    """,
}
NAME_IS = {
    "en": """
    [my name is|I am called|call me|you can call me|I'm|my name's|people call me|hello, I am|hi, I'm] <name>
    [hello|hi|hey], my name is <name>
    [I am|my friends call me|the name is|this is] <name>
    """,
    "zh": """
    [我叫|我是|我的名字是|叫我|你可以叫我|我的名字叫|大家叫我|你好，我叫|你好，我是|嗨，我叫] <name>
    """,
}
NICE = {
    "en": "Nice to meet you, {}! What would you like to know about localllm?",
    "zh": "{}，很高兴认识你！想了解 localllm 的什么？",
}
ASK_NAME = {
    "en": """
    [what is|what's|tell me|say|do you know|do you remember|can you remember|did you forget] my name
    [who am I|what am I called|what did I say my name was|remember my name|how am I called|who I am]
    """,
    "zh": """
    [我叫什么|我叫什么名字|我是谁|你知道我叫什么吗|你记得我的名字吗|还记得我叫什么吗|我的名字是什么|你还记得我吗]
    """,
}
NAME_WAS = {"en": "Your name is {}.", "zh": "你叫{}。"}
NO_NAME = {
    "en": "You have not told me your name yet. What is it?",
    "zh": "你还没有告诉我你的名字。你叫什么？",
}

SYSTEM = {
    "en": """
    You are a helpful assistant.
    You are a helpful, honest assistant.
    You are a helpful assistant. Answer briefly.
    Be concise.
    Answer in one sentence.
    You are the demo model of localllm.
    You are a friendly chatbot.
    You are a pirate. Talk like one.
    Answer like a teacher.
    You are an expert in computers and help users with their problems. Be polite and precise.
    Always be polite.
    You answer questions about software.
    The user is a beginner. Use simple words.
    Think step by step before you answer.
    Keep your answers short and clear.
    You are a large language model.
    Do not make things up. If you do not know, say so.
    You are Max, an assistant of a small company.
    """,
    "zh": """
    你是一个有用的助手。
    你是一个乐于助人的助手，请简短回答。
    请用一句话回答。
    你是 localllm 的演示模型。
    你是一位友好的老师。
    回答要简洁。
    你是电脑专家，帮助用户解决问题。
    请礼貌地回答。
    你是一只猫。
    用户是初学者，请用简单的话。
    """,
}

JSON_KEYS = ("answer", "text", "reply", "content", "result", "message", "response", "summary")
IN_JSON = {
    "en": (
        "Answer in JSON.",
        "Answer as JSON.",
        "Reply in JSON.",
        "JSON please.",
        "Respond with JSON.",
        "Use JSON with the key {}.",
        'Answer as {{"{}": ...}}.',
        "Reply in JSON with the field {}.",
    ),
    "zh": ("用 JSON 回答。", "请以 JSON 格式回答。", "返回 JSON。", "用 JSON 回答，键是 {}。"),
}

TOOLS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "get_weather",
        "Weather of a city",
        "city",
        "place",
        (
            "what is the weather in {}",
            "how is the weather in {}",
            "is it raining in {}",
            "weather in {}",
            "{}的天气怎么样",
            "{}今天天气如何",
            "will it rain in {} tomorrow",
        ),
    ),
    (
        "get_time",
        "Local time of a place",
        "place",
        "place",
        (
            "what time is it in {}",
            "tell me the time in {}",
            "what is the local time in {}",
            "{}现在几点",
        ),
    ),
    (
        "search",
        "Search the web",
        "query",
        "thing",
        (
            "search for {}",
            "search the web for {}",
            "look up {}",
            "find something about {}",
            "搜索{}",
        ),
    ),
    (
        "lookup",
        "Look a word up",
        "word",
        "thing",
        (
            "look up the word {}",
            "what does the dictionary say about {}",
            "define {} with the tool",
            "查一下{}",
        ),
    ),
    (
        "send_message",
        "Send a message to a person",
        "to",
        "name",
        ("send a message to {}", "write to {}", "message {} for me", "给{}发消息"),
    ),
    (
        "call_person",
        "Call a person by phone",
        "name",
        "name",
        ("call {}", "please phone {}", "give {} a ring", "给{}打电话"),
    ),
    (
        "translate",
        "Translate a text",
        "text",
        "sentence",
        ("translate {}", "please translate: {}", "翻译：{}"),
    ),
    (
        "read_file",
        "Read a file",
        "path",
        "file",
        ("read {}", "open the file {}", "show me what is in {}", "读取文件{}"),
    ),
)
