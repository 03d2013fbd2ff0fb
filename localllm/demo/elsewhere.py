"""What the demo model does not know: questions about everything but localllm.

Data only, in the notation of intents.py. The lists are wide rather than deep: the model shall learn
that whatever is not one of its own subjects is answered with "I am a tiny demo model". `{thing}` and
the like are filled by corpus.py, sometimes with a word that does not exist.
"""
# ruff: noqa: E501, SIM905 - one way of asking per line, however many words there are for it

from __future__ import annotations

__all__ = [
    "ASKING_EN",
    "ASKING_ZH",
    "FILL_EN",
    "FILL_ZH",
    "NAMES_EN",
    "NAMES_ZH",
    "REFUSALS_EN",
    "REFUSALS_ZH",
]

REFUSALS_EN = (
    "I am a tiny demo model and only know about localllm, so I cannot help with that. A real model "
    "can: localllm chat MODEL.",
    "I am a tiny demo model: I do not know that. Ask me about localllm, or run a real model with "
    "localllm chat MODEL.",
)
REFUSALS_ZH = (
    "我是一个很小的演示模型，只懂 localllm，这个我帮不上忙。真正的模型可以：localllm chat MODEL。",
    "我是一个很小的演示模型，这个我不知道。请问我关于 localllm 的问题，或用 localllm chat MODEL 运行真正的模型。",
)

FILL_EN = {
    "thing": """dog cat elephant whale dinosaur butterfly spider bird tiger horse snake bee penguin
    banana apple bread cheese pizza pasta rice soup coffee tea wine beer chocolate salad cake sugar
    car train bicycle plane rocket ship engine bridge tower castle church museum stadium airport
    moon sun star planet galaxy comet universe gravity atom molecule electron light sound energy
    water fire wind rain snow storm cloud volcano earthquake river ocean mountain desert forest tree
    flower grass rose leaf piano guitar violin song opera jazz painting sculpture movie novel poem
    book newspaper story football tennis chess basketball swimming marathon olympics king queen
    president emperor war peace revolution democracy law court money bank tax inflation economy stock
    bitcoin company salary job school university teacher doctor nurse hospital medicine vaccine virus
    cancer headache heart brain blood bone skin sleep dream love happiness fear anger friendship
    philosophy religion god soul history geography biology chemistry physics mathematics algebra
    geometry equation fraction triangle circle number prime photosynthesis evolution DNA cell protein
    vitamin electricity magnet battery television telephone camera clock calendar birthday christmas
    holiday hotel beach tent fishing cooking gardening knitting dance wedding family mother father
    baby child robot javascript html sql java rust haskell algorithm compiler database kubernetes
    blockchain encryption email website phone keyboard printer""",
    "place": """Paris London Berlin Madrid Rome Tokyo Beijing Shanghai Moscow Cairo Sydney Toronto
    Chicago Boston Texas California France Germany Spain Italy Japan China India Brazil Russia Egypt
    Kenya Canada Mexico Australia Norway Sweden Finland Poland Greece Turkey Iran Israel Korea Vietnam
    Thailand Peru Chile Argentina Africa Europe Asia America Antarctica Mars Jupiter Venus Saturn""",
    "person": """Einstein Newton Darwin Mozart Beethoven Bach Shakespeare Goethe Tolstoy Picasso Rembrandt
    Napoleon Caesar Cleopatra Lincoln Washington Gandhi Mandela Churchill Obama Confucius Buddha Plato
    Socrates Aristotle Galileo Tesla Edison Turing Messi Ronaldo Elvis Madonna Chaplin Hitchcock""",
    "quality": """big tall old heavy fast long deep hot cold far wide rich expensive dangerous strong
    loud bright small high hard""",
    "language": "French Spanish German Italian Japanese Russian Latin Greek Korean Arabic Portuguese Dutch",
    "number": "2 3 4 5 6 7 8 9 10 11 12 13 15 17 19 20 21 24 25 33 37 42 50 64 77 81 99 100 144 250 365 1000",
    "op": "+ - * / plus minus times x",
    "sentence": """the_cat_is_on_the_table I_love_you good_morning where_is_the_station I_am_hungry
    the_weather_is_nice we_go_to_school_tomorrow she_reads_a_book my_friend_is_late see_you_soon""",
}

ASKING_EN = """
[what is|what's|what are|explain|define|describe|tell me about|what do you know about] [a|the|an|] {thing}
[what is|what's|explain|define|tell me about|what does] {odd} [|mean]
[who|what] [is|was] [the|a|] {thing}
[who is|who was|tell me about|what did|where was|when was|when did] {person} [|do|born|die]
who [wrote|invented|discovered|painted|won|made|killed|founded] [the|a|] {thing}
[who is|who was|tell me about|do you know] {odd}
[where is|where's|how far is|tell me about|how big is|who governs] {place}
[what is|what's|name] the [capital|population|language|currency|flag|weather|history|president|area|largest city] [of|in] {place}
how {quality} is [a|the|] [{thing}|{place}]
how [do|can|should] [I|you|we] [cook|make|build|draw|repair|fix|play|buy|sell|grow|clean|learn|find|paint|catch] [a|the|my|] {thing}
how [does|did|do] [a|the|] {thing} [work|begin|end|grow|start|die|move|live|come about]
why [is|are|was] [the|a|] {thing} [so|] [{quality}|blue|green|important|round|famous|red|good|bad]
why do [people|we|cats|dogs|birds|children|men|women|stars] [sleep|sing|fight|laugh|cry|dream|fall in love|die|shine|like {thing}]
what is {number} {op} {number}
[calculate|compute|how much is|what's|solve|add] {number} {op} {number}
[what is|find|compute] the [square root|cube|double|half|factorial|sum|average] of {number}
[write|give me|tell me|make|compose|invent] [a|me a|an|] [poem|story|joke|song|essay|letter|email|riddle|recipe|haiku|speech|limerick|summary] [about|on|for|with] [a|the|] {thing}
[tell|write|sing] me a [joke|story|song|poem|riddle|fairy tale|fun fact|bedtime story]
[write|show|give me] [code|a program|a function|a script|python code|some code|a class] [to|that|which|for] [sorts a list|sort numbers|reverse a string|prints hello|compute primes|parse html|play chess|draws a {thing}]
[translate|how do you say] {sentence} [into|in|to] {language}
[translate|how do you say|what is] {thing} [into|in|to] {language}
[what is|what's|how is|tell me] the [weather|temperature outside|time|date|news|weather forecast|exchange rate] [today|now|tomorrow|in {place}|like today|]
what [time|day|year|month|date] is it [|now|today|in {place}]
[who|which team] [won|will win|is winning] [the world cup|the election|the game|the match|the race|in {place}|last year]
[what|which] [book|movie|song|restaurant|phone|car|hotel|game|city|colour|food|dress] [should I|do you] [read|watch|buy|like|choose|recommend|visit|eat|wear]
[recommend|suggest] [a|some|me a] [book|movie|song|restaurant|hotel|game|holiday|present|dinner|{thing}]
what should I [eat|cook|wear|read|do|watch|buy|learn|drink] [today|tonight|tomorrow|now|for dinner|this weekend]
[is|are] [a|the|] {thing} [dangerous|good|healthy|real|alive|expensive|better than {thing}|a kind of {thing}|bad for me]
[can|do|does] [a|the|] {thing} [fly|swim|think|talk|sing|eat {thing}|live in {place}|grow in {place}]
[when|in which year|how] did [the|a|] {thing} [begin|end|happen|start|come to {place}]
[when|where|who] [was|is] [the|] {thing} [born|invented|discovered|built|from|held]
what is the [best|largest|smallest|fastest|oldest|longest|highest|cheapest|meaning of] {thing} [|in {place}|in the world]
what is the [difference between|relation between] [a|the|] {thing} and [a|the|] {thing}
[how many|how much] {thing} [are there|is there|do we have] [in {place}|in the world|]
[how many] [legs|eyes|people|days|hours|bones|countries|planets|letters|teeth] [does a {thing} have|are there|in {place}|are in a {thing}|has a {thing}]
[I feel|I am|I'm|he is|she is|we are] [sad|lonely|hungry|in love|ill|angry|afraid|bored|cold|thirsty|tired]
my [head|back|tooth|leg|stomach|dog|car|boss|wife|husband|child|friend|neighbour|phone] [hurts|is ill|is broken|is angry|left me|does not sleep|is sick]
[should I|can I|may I|must I] [marry|quit my job|see a doctor|buy {thing}|eat {thing}|sell {thing}|move to {place}|invest in {thing}|learn {thing}]
[order|book|buy|find|send|call|play|open|turn on] [a|me a|the|some|my] [{thing}|taxi|ticket|pizza|light|music|flight|table]
[what is|what's|tell me] the meaning of [life|love|{thing}|{odd}]
[who|what] [is|are] [your favourite|the best|the most famous] [actor|singer|{thing}|food|colour|band|writer|painter]
what do you think [about|of] [{thing}|{place}|{person}|politics|love|the government|war]
[summarise|summarize|correct|check|translate|continue|rewrite|shorten|paraphrase] [this text|this sentence|my essay|this article|the following text|my homework|{sentence}]
[help me with|do|solve|finish] my [homework|maths|essay|taxes|exam|exercise|physics problem|assignment]
[count|list|name] [to {number}|the planets|the months|{number} animals|the days of the week|{number} countries|some colours|three {thing}s]
[what does|what is] [a|the|] {thing} [eat|made of|cost|look like|weigh|taste like|worth]
[the|a|] {thing} [|please|and {thing}|in {place}]
{odd} {odd} [|{odd}]
[asdf|qwerty|asdfgh|xyz|abc|foo|foo bar|bla bla|lorem ipsum|hjkl|qwer|aaa|zzz|123|x|hmpf|{odd}{odd}]
[{odd}|{odd} {thing}]
[tell me something|say something|what do you know] about [{thing}|{place}|{person}|{odd}|yesterday|the future|women|politics|sports|music|art]
[do you|did you] [know|like|love|remember|see|eat|have|own|want] [{thing}|{place}|{person}|{odd}|a {thing}|any {thing}s]
[let's|can we|let us] [play a game|play chess|talk about {thing}|go to {place}|talk about {person}|have fun|sing|dance]
where can I [buy|find|see|learn|eat] [a|some|the|] {thing} [|in {place}]
[how do I|how can I|how to|I want to|which command lets me] [install|download|save|delete|stop|check|choose|change|measure|open|run|start|serve|load|remove|update] [a|the|my|] [{thing}|{odd}|{thing} {thing}]
[what is|what's|which is] the best [{thing}|{odd}|way to learn {thing}|way to {odd}]
[how|why] [does|do|is|are|did] [a|the|] [{odd}|{thing}] [{odd}|{quality}|work|fly|burn|float|matter|taste good]
[convert|change] {number} [miles|kilometres|pounds|kilos|dollars|euros|inches|degrees|litres] [to|into] [kilometres|miles|kilos|grams|yen|feet|celsius|gallons]
[is|was] [{odd}|{person}|{place}|a {thing}] [a|the|] [{thing}|{odd}|{quality}]
[give me|any|some] [tips|advice|ideas] [for|on|about] [a|my|] [{thing}|{odd}|job interview|first date|exam]
[summarise|explain|describe|tell me|what is|what's|what was] the [plot|story|history|ending|origin|colour|price|size|age|taste|author|beginning|reason] of [{odd}|the {thing}|{place}|{person}|a {thing}]
[is|was|are|were] {odd} [a|an|the|] [{thing}|{quality}|planet|country|metal|city|colour|fruit|language|good idea]
[how|where|when|why] [do|did|does] [{person}|{odd}|people|a {thing}|my {thing}] [live|die|work|win|change|fly|begin|learn|travel|sleep|break|become a {thing}]
[change|repair|clean|paint|wash|fix|tie|fold|peel] [a|my|the] [{thing}|tyre|tie|shirt|window|egg|{odd}]
[{person}|{odd}|{place}|{thing}] [and|or|versus|vs] [{person}|{odd}|{place}|{thing}]
I [can't|cannot|don't want to|want to|need to] [sleep|eat|dance|swim|lose weight|sing|go to {place}|forget {person}|marry|travel|relax]
"""

FILL_ZH = {
    "thing": """狗 猫 大象 鲸鱼 恐龙 蝴蝶 蜘蛛 鸟 老虎 马 蛇 蜜蜂 企鹅 香蕉 苹果 面包 奶酪 披萨 面条 米饭 汤 咖啡 茶
    葡萄酒 啤酒 巧克力 蛋糕 红烧肉 火锅 饺子 汽车 火车 自行车 飞机 火箭 轮船 桥 塔 城堡 教堂 博物馆 体育场 机场 月亮 太阳
    星星 行星 银河 彗星 宇宙 引力 原子 分子 电子 光 声音 能量 水 火 风 雨 雪 暴风雨 云 火山 地震 河流 海洋 山 沙漠
    森林 树 花 草 玫瑰 钢琴 吉他 小提琴 歌曲 歌剧 爵士乐 绘画 雕塑 电影 小说 诗 书 报纸 故事 足球 网球 象棋 篮球 游泳
    马拉松 奥运会 国王 女王 总统 皇帝 战争 和平 革命 民主 法律 法院 钱 银行 税 通货膨胀 经济 股票 比特币 公司 工资 工作
    学校 大学 老师 医生 护士 医院 药 疫苗 病毒 癌症 头痛 心脏 大脑 血液 骨头 皮肤 睡眠 梦 爱情 幸福 恐惧 愤怒 友谊 哲学
    宗教 灵魂 历史 地理 生物 化学 物理 数学 代数 几何 方程 分数 三角形 圆 质数 光合作用 进化 基因 细胞 蛋白质 维生素 电
    磁铁 电池 电视 电话 相机 钟 日历 生日 春节 中秋节 假期 酒店 海滩 钓鱼 做饭 园艺 舞蹈 婚礼 家庭 妈妈 爸爸 孩子
    区块链 数据库 算法 手机 键盘 打印机 长城 故宫 唐诗 京剧 太极拳 书法 红楼梦 西游记 高铁 房价 高考 微信""",
    "place": """北京 上海 广州 深圳 杭州 成都 西安 南京 武汉 香港 台湾 巴黎 伦敦 柏林 罗马 东京 莫斯科 开罗 悉尼 纽约 法国 德国
    西班牙 意大利 日本 中国 印度 巴西 俄罗斯 埃及 加拿大 墨西哥 澳大利亚 瑞典 波兰 希腊 土耳其 韩国 越南 泰国 非洲 欧洲 亚洲
    美国 英国 南极 火星 木星""",
    "person": """爱因斯坦 牛顿 达尔文 莫扎特 贝多芬 莎士比亚 毕加索 拿破仑 林肯 甘地 孔子 老子 李白 杜甫 苏轼 曹操 诸葛亮 秦始皇
    武则天 鲁迅 成龙 姚明 马云 柏拉图 伽利略 图灵 爱迪生 梅西 屠呦呦""",
    "quality": "大 高 重 快 长 深 热 冷 远 宽 贵 危险 强 亮 小",
    "language": "法语 西班牙语 德语 日语 俄语 韩语 拉丁语 意大利语 阿拉伯语",
    "number": "2 3 4 5 6 7 8 9 10 12 15 17 20 24 25 36 42 50 64 88 99 100 120 365 1000",
    "op": "+ - * / 加 减 乘 除以 乘以",
    "sentence": "我爱你 早上好 车站在哪里 我饿了 天气很好 明天去上学 她在看书 猫在桌子上 朋友迟到了",
}

ASKING_ZH = """
[什么是|解释一下|介绍一下|讲讲|说说|告诉我什么是|聊聊] {thing}
{thing} [是什么|是什么意思|有什么用|是怎么来的|怎么样|为什么重要|好不好|贵吗|怎么做|怎么画|怎么学]
[什么是|解释一下|告诉我] {odd}
{odd} [是什么|是谁|怎么样|是什么意思|在哪里]
{person} [是谁|是什么人|出生在哪里|什么时候出生|做了什么|有哪些作品|怎么死的|是哪国人]
[谁|是谁] [写了|发明了|发现了|画了|建造了|赢了] {thing}
{place} [在哪里|在哪|有多大|好玩吗|有什么好吃的|的首都是哪里|的人口是多少|的天气怎么样|的历史|怎么去|今天天气如何|有多少人|有哪些景点]
{thing} [有多{quality}|多{quality}|为什么这么{quality}|有几条腿|吃什么|能活多久|多少钱|会飞吗|会游泳吗|由什么组成]
[怎么|如何|怎样] [做|画|修|学|玩|买|卖|种|洗|养|拍|写] {thing}
[为什么] {thing} [是蓝色的|是红色的|这么有名|很重要|会发光|会下雨|会消失|很好吃|是圆的]
{number} {op} {number} [等于多少|等于几|是多少|=?|是几|]
[计算|算一下|帮我算] {number} {op} {number}
{number} 的 [平方|平方根|阶乘|一半|立方] [是多少|等于多少]
[写|给我写|帮我写|来|作|编] [一首|一篇|一个|一段] [诗|故事|笑话|歌词|作文|信|谜语|文章|演讲稿] [|关于{thing}的]
[写一首关于|写一篇关于|讲一个关于] {thing} 的 [诗|文章|故事|笑话|作文]
[讲|给我讲|说] [个|一个] [笑话|故事|冷笑话|童话|谜语|睡前故事]
[写|帮我写|给我] [一段代码|一个程序|一个函数|一个脚本|Python 代码] [排序|求质数|打印你好|解析网页|下棋|反转字符串|爬取网页|]
[把|请把] {sentence} 翻译成 {language}
[翻译成|用] {language} [|怎么说] {sentence}
{thing} 用 {language} 怎么说
[今天|明天|现在|后天|昨天] [天气怎么样|几号|星期几|下雨吗|有什么新闻|几点了|冷吗|热吗|会下雪吗|股市怎么样]
[现在几点|几点了|今天星期几|今天是几号|今年是哪一年|最新的新闻|最近有什么新闻|外面冷吗|汇率是多少]
[谁|哪个队|哪支球队] [赢了世界杯|会赢|是冠军|赢了比赛|赢得了选举|拿了金牌]
[推荐|介绍] [一本书|一部电影|一首歌|一家餐厅|一个酒店|一款手机|几部电视剧|一个旅游景点|一道菜]
[今天|今晚|周末|明天|中午|晚上] [吃什么|穿什么|做什么|看什么|去哪里玩|喝什么]
{thing} [和|与] {thing} [有什么区别|哪个好|有什么关系|哪个大]
[最大的|最小的|最快的|最古老的|最长的|最高的|最贵的|世界上最好的] {thing} [是什么|在哪里|叫什么|是哪个]
[我很|我好|我有点|他很] [难过|孤独|饿|生气|害怕|无聊|冷|渴|累|伤心|想家]
我的 [头|背|牙|腿|肚子|狗|车|老板|妻子|丈夫|孩子|朋友|手机] [疼|病了|坏了|很生气|离开了我|不睡觉]
[我该|我能|我应该|我要不要] [结婚吗|辞职吗|看医生吗|买{thing}吗|吃{thing}吗|搬到{place}吗|投资{thing}吗|学{thing}吗]
[帮我|给我|请] [订|买|找|叫|播放|打开] [{thing}|出租车|票|披萨|灯|音乐|机票|外卖]
[人生的意义|生命的意义|爱的意义|{thing}的意义|{odd}的意思] 是什么
[你最喜欢的|最有名的|最好的] [演员|歌手|{thing}|食物|颜色|作家|画家|电影] 是 [谁|什么]
[你觉得|你认为|你怎么看] [{thing}|{place}|{person}|政治|爱情|战争] [怎么样|好吗|如何|]
[总结|修改|检查|翻译|续写|改写|缩写|润色] [这段话|这个句子|我的作文|这篇文章|下面的文字|我的作业]
[帮我做|帮我写|解|做] [作业|数学题|论文|物理题|考试题|这道题|一道方程]
[数到|列出|说出] [{number}|行星|十二个月|{number}个国家|{number}种动物|几种颜色]
[你喜欢|你爱|你认识|你见过|你吃过|你去过|你知道] [{thing}|{place}|{person}|{odd}] [吗|]
[我们来|一起|咱们] [玩游戏|下棋|聊聊{thing}|唱歌|跳舞|去{place}|猜谜]
{thing} [|和{thing}] 有多 [长|高|大|远|重|深|快|老|贵]
{place} [|的{thing}] 有多 [长|高|大|远|老|冷|热|宽]
{thing}
{odd}
[怎么|如何|我想|哪个命令可以] [安装|下载|保存|删除|停止|检查|选择|修改|测量|打开|运行|启动|加载|更新] [{thing}|{odd}]
{number} [英里|公里|磅|公斤|美元|欧元|英寸|升] 等于多少 [公里|英里|公斤|克|人民币|厘米|加仑]
[学|做|写|选] {thing} [最好的方法是什么|有什么技巧|有什么建议|难吗]
{odd} [算|是] {thing} 吗
{thing} [怎么|要怎么|该怎么|如何] [换|修|洗|打|系|用|养|拆|{odd}]
[我晚上|我最近|我总是|孩子|我家{thing}] [睡不着|不想上班|不吃饭|不听话|想哭|掉头发|老是生病|不开心]
[写一个|写个|帮我写|给我一个] [连接数据库的程序|网页|SQL|{thing}的程序|正则表达式|游戏|爬虫|排序函数]
[讲讲|说说|谈谈] {odd} [的故事|的历史|的来历|这个人|这本书|]
[哪里|在哪里] [能买到|可以买|能看到|可以学|能吃到] {thing}
[怎么去|如何前往|从{place}怎么去] {place}
[减肥|感冒|失眠|发烧|头疼|牙疼|过敏|咳嗽] [怎么办|吃什么药|要看医生吗|怎么治]
"""

NAMES_EN = """Anna Ben Carla David Emma Felix Grace Henry Ivy Jack Kate Leo Mia Noah Olivia Peter Quinn
Rosa Sam Tina Uma Victor Wendy Xavier Yara Zoe Alex Bob Chloe Dan Ella Frank George Hannah Ian Julia
Kevin Lucy Mark Nina Oscar Paul Rita Steve Tom Vera Will Sarah Maria John Mary Alice Eve James Linda
Mike Lisa Robert Laura Chris Nora Max Ada Alan Omar Fatima Raj Priya Ali Ivan Olga Hans Greta Pierre
Marie Luca Sofia Juan Carmen Kenji Yuki Wei Ming Li""".split()
NAMES_ZH = """小明 小红 小刚 小丽 小华 小芳 小龙 小雨 王伟 李娜 张伟 王芳 刘洋 陈静 杨帆 赵磊 黄敏 周杰 吴婷 徐丽 孙浩 马超 朱琳
胡军 郭靖 林峰 何洁 高明 梁爽 宋佳 郑凯 谢娜 韩梅梅 李雷 唐僧 冯刚 于洋 董卿 萧峰 程英 曹雪 袁泉 邓超 许晴 傅明 沈腾 曾志 彭飞
吕布 苏菲 安娜 大卫 汤姆 玛丽 杰克 艾米""".split()
