"""What an agent says, and what an avatar may say in its place.

Each list is split by a fixed rule: `tuning()` gives the sentences on which numbers may be chosen,
`proof()` the others, on which they are tried. New sentences go to the end of a list, so that none
changes sides.
"""

from __future__ import annotations

from collections.abc import Sequence

AGENT: dict[str, tuple[str, ...]] = {
    "en": (
        "Thanks for calling. How can I help you today?",
        "I have found two free tables for this evening, one at seven and one at half past eight.",
        (
            "Your parcel left the warehouse on Tuesday, and it should be with you tomorrow "
            "before noon."
        ),
        "Could you tell me the last four digits of your order number, please?",
        "I'm sorry to hear that. Let me look into it for you right away.",
        "The museum is open from nine to five, except on Mondays, when it stays closed all day.",
        "Great, I have booked a double room for three nights, with breakfast, from the fourteenth.",
        "Before we begin, may I ask whether you have played the piano before?",
        "Your next appointment is on Friday, the ninth of May, at a quarter to four.",
        (
            "The total comes to eighty-six dollars and forty cents, and I can send you the "
            "receipt by email."
        ),
        "That's a very good question, and the short answer is that it depends on the weather.",
        "Please turn the router off, wait for thirty seconds, and then turn it on again.",
        "There is a slight delay on the northern line because of repairs near the harbor.",
        "Would you like me to send a reminder to your phone one hour before the meeting starts?",
        (
            "I can see that your flight to Lisbon was moved to gate twenty-two, and boarding "
            "begins soon."
        ),
        "Take a deep breath, and let your shoulders drop as you slowly breathe out.",
        "We have this jacket in navy, olive and black, but only black is left in a medium.",
        "Let me repeat that, so that we are both sure: two adults, one child, and a dog.",
        (
            "The doctor recommends one tablet in the morning and another one in the evening, "
            "after meals."
        ),
        "You have seven new messages, and three of them look like they need an answer today.",
        "Nice to meet you, Sarah! My name is Robin, and I will guide you through the tour.",
        "If you multiply both sides by four, what happens to the fraction on the left?",
        (
            "The battery lasts for about eleven hours, and it charges fully in less than "
            "ninety minutes."
        ),
        (
            "Unfortunately, the store on Baker Street is out of stock, but the one downtown "
            "has plenty."
        ),
        "Just say stop whenever you want me to slow down or explain something once more.",
        "It looks as if somebody tried to sign in from a device that we haven't seen before.",
        "For the sauce, chop two onions and fry them gently until they turn soft and golden.",
        "Our insurance covers broken glass, theft and fire, though it does not cover lost keys.",
        "Do you prefer a seat by the window, or would you rather sit on the aisle?",
        "I've added oat milk, rye bread and a dozen eggs to your shopping list.",
        "Okay, the lights in the kitchen are off, and the heating is down to eighteen degrees.",
        (
            "The second candidate has more experience with databases, whereas the first "
            "writes clearer code."
        ),
        "Please hold the card up to the camera, and make sure that all four corners are visible.",
        "Your subscription renews on the first of each month, and you may cancel it at any time.",
        (
            "In nineteen sixty-nine, two people walked on the moon while a third one circled "
            "above them."
        ),
        "Yes, the pool is heated, and towels are waiting for you at the front desk.",
        "How was the food, how was the service, and would you come back with your friends?",
        "I understand. In that case, I will transfer you to a colleague who speaks Portuguese.",
        "Traffic is heavy on the bridge, so leave ten minutes earlier than you usually would.",
        "Wonderful! You got nine out of ten, and the only mistake was a missing comma.",
        (
            "To change your password, open the settings, choose security, and follow the "
            "steps on the screen."
        ),
        "The train on platform six goes to Bristol and calls at Reading, Swindon and Bath.",
        (
            "All right, I have changed the address to Garden Lane twelve. The courier will "
            "ring the bell twice, and if nobody answers, the parcel goes to the shop next "
            "door, where you can collect it until Saturday evening."
        ),
        (
            "There are three ways to get to the airport from here. The bus is the cheapest, "
            "the train is the fastest, and a taxi is the only one that still runs after "
            "midnight, although it costs about forty dollars."
        ),
        (
            "I checked both calendars. You are free on Wednesday after two, she is free on "
            "Thursday before eleven, and the only time that suits you both is Monday morning "
            "at nine, right after the weekly call."
        ),
        (
            "Photosynthesis is how a plant turns sunlight into sugar. It takes in water "
            "through the roots, carbon dioxide through the leaves, and it gives back the "
            "oxygen that you and I are breathing at this moment."
        ),
        (
            "Your claim was received on the third of June. An expert will look at the "
            "photographs this week, and as soon as she has decided, you will get a letter "
            "and, if all goes well, the money within ten days."
        ),
        (
            "First, warm up for five minutes. Then do ten squats, rest for half a minute, and"
            " repeat that four times. Keep your back straight, look ahead, and stop at once "
            "if your knees begin to hurt."
        ),
    ),
    "de": (
        "Guten Tag, schön, dass Sie anrufen. Was kann ich für Sie tun?",
        "Ihr Paket ist unterwegs und sollte morgen zwischen zehn und zwölf Uhr bei Ihnen ankommen.",
        "Ich habe für heute Abend einen Tisch am Fenster gefunden, allerdings erst um halb neun.",
        "Könnten Sie mir bitte die letzten vier Ziffern Ihrer Kundennummer nennen?",
        "Der Zug nach Freiburg fährt heute von Gleis sieben und hat etwa fünf Minuten Verspätung.",
        "Das tut mir leid. Ich schaue sofort nach, woran es liegen könnte.",
    ),
    "fr": (
        "Bonjour et merci de votre appel. Que puis-je faire pour vous aujourd'hui ?",
        "Votre colis est parti mardi, et vous devriez le recevoir demain avant midi.",
        "J'ai trouvé une table pour deux personnes ce soir, mais seulement à neuf heures et demie.",
        "Pourriez-vous me donner les quatre derniers chiffres de votre numéro de commande ?",
        "Le musée est ouvert tous les jours, sauf le lundi, de dix heures à dix-huit heures.",
        "Je suis désolée, je vais regarder tout de suite ce qui s'est passé.",
    ),
    "es": (
        "Buenos días y gracias por llamar. ¿En qué puedo ayudarle hoy?",
        "Su paquete salió el martes y debería llegar mañana antes del mediodía.",
        "He encontrado una mesa libre para cuatro personas esta noche, cerca de la ventana.",
        "¿Podría decirme las cuatro últimas cifras de su número de pedido, por favor?",
        "El museo abre a las diez de la mañana y cierra a las seis de la tarde.",
        "Lo siento mucho. Voy a comprobar ahora mismo qué ha pasado.",
    ),
    "it": (
        "Buongiorno e grazie per la chiamata. Come posso aiutarla oggi?",
        "Il suo pacco è partito martedì e dovrebbe arrivare domani prima di mezzogiorno.",
        "Ho trovato un tavolo libero per due persone questa sera, vicino alla finestra.",
        "Può dirmi le ultime quattro cifre del suo numero d'ordine, per favore?",
        "Il treno per Bologna parte dal binario sei con circa dieci minuti di ritardo.",
    ),
    "pl": (
        "Dzień dobry, dziękuję za telefon. W czym mogę dzisiaj pomóc?",
        "Paczka wyjechała z magazynu we wtorek i powinna dotrzeć jutro przed południem.",
        "Znalazłam wolny stolik dla czterech osób na dziś wieczór, tuż przy oknie.",
        "Czy mogę prosić o cztery ostatnie cyfry numeru zamówienia?",
        "Muzeum jest czynne od dziesiątej do osiemnastej, codziennie oprócz poniedziałku.",
    ),
    "cmn": (
        "您好,感谢您的来电。今天我能帮您做什么?",
        "您的包裹星期二已经发出,明天中午以前应该可以送到。",
        "我为您找到了今天晚上的一张空桌,就在窗户旁边。",
        "请您告诉我订单号码的最后四位数字,好吗?",
        "博物馆每天上午九点开门,下午五点关门,星期一休息。",
    ),
    "ja": (
        "おでんわありがとうございます。きょうはどのようなごようけんでしょうか。",
        "おにもつはかようびにはっそうされ、あしたのごぜんちゅうにとどくよていです。",
        "こんばん、まどのそばのせきをよにんさまでおとりできました。",
        "ごちゅうもんばんごうのさいごのよんけたをおしえてください。",
        "びじゅつかんはまいにちくじからごじまであいています。",
    ),
}
"""By language. The English ones take 2 to 12 s; most voices need 4 to 7 s."""

SHORT = ("Okay.", "Bye!", "Yes, please.", "One moment.", "Sure thing!", "Thank you.")
"""English, under 2 s."""

LONG = (
    (
        "Let me sum up what we have agreed on. You will keep the contract that you have now "
        "until the end of September. From October on, you pay four dollars less each month, and"
        " in return you get twice as much data. Nothing changes for the second card, which your"
        " daughter uses. I will send you all of this in writing today."
    ),
    (
        "Here is how the tour works. We start in the courtyard, where you can still see the old"
        " well and the stones that were brought here from the river. Then we climb ninety-two "
        "steps to the gallery. Please mind your head, since the doors are low. Upstairs, I will"
        " tell you about the painter who lived in this house for thirty years and never sold a "
        "single picture. After that, you have a quarter of an hour to look around by "
        "yourselves. The view from the northern window is the best one, in my opinion. We meet "
        "again in the garden, and there is tea, coffee and apple cake for everybody who would "
        "like some."
    ),
    (
        "Once upon a time, a lighthouse keeper lived on an island so small that it had no name."
        " Each evening he lit the lamp, and each morning he put it out again, and in between he"
        " wrote letters to ships that had passed. One winter, a storm broke the glass of the "
        "lamp. The keeper took every mirror in his house, carried them up the stairs, and set "
        "them around a single candle. Far out at sea, a captain saw a weak and trembling star "
        "where no star should be, and turned his ship away from the rocks. In spring, a parcel "
        "arrived. It held new glass, a tin of tobacco, and a letter with a single sentence: we "
        "have seen your candle. The keeper read it twice, and then he hung it on the wall where"
        " the largest of the mirrors had been. From that day on, the island had a name. Sailors"
        " call it Candle Rock, and you will find it on every map of that coast."
    ),
)
"""English, 20 to 60 s."""

OWN_WORDS: dict[str, tuple[str, ...]] = {
    "en": (
        "Hey there! It's lovely to see you. What would you like to talk about?",
        "Hmm, that's interesting. Tell me more about how that made you feel.",
        "I don't have any information about that, but I'd be happy to chat about something else.",
        "Sorry, I didn't quite catch what you said. Would you mind saying it again?",
        "Of course! I love talking about music. Who is your favorite artist?",
        "As an assistant, I can answer questions, tell stories, or simply keep you company.",
        "Are you still there? I can wait if you need a little more time.",
        "You know, most people find that going for a walk helps them to clear their heads.",
        "Absolutely, I'm all ears. Go ahead whenever you're ready.",
        "Let's try something fun. Think of an animal, and I'll try to guess it.",
        "I was just thinking about the same thing. What a coincidence!",
        "Well, there are several ways to look at it, and none of them is completely wrong.",
        "It sounds like you've had a long day. Do you want to hear a joke?",
        "Good morning! I hope that you slept well and that you're ready for the day.",
        "My favorite season is autumn, because of the colors and the smell of wet leaves.",
        "No worries at all. We can take it step by step, at whatever pace suits you.",
        "Honestly, I'm not sure. What do you think would be the best choice?",
        "I appreciate your patience. Is there anything in particular that you'd like to know?",
        "Oh, that reminds me of a book about a whale and a very stubborn captain.",
        "Please don't hesitate to ask me anything, no matter how small it may seem.",
        "Ha, that's a good one! I have to remember it for next time.",
        "The capital of Australia is Canberra, although many people believe that it's Sydney.",
        "I can't open links or see your screen, but you can describe to me what's on it.",
        "Right now I'm running in a demo, so some of my abilities may be limited.",
        "What brings you here today? Are you working on a project, or just curious?",
        "Let me think about that for a second. Yes, I believe there are eight of them.",
        "If I were you, I'd start with the easy part and leave the rest for the afternoon.",
        "Thanks for sharing that with me. It takes courage to speak so openly.",
        "It was a pleasure to talk with you. Have a beautiful evening, and take care!",
        "Could you be a bit more specific? There are so many kinds of birds in the world.",
        "I see what you mean. People often say that practice matters more than talent.",
        "Shall we continue where we stopped last time, or do you have a new topic?",
    ),
    "de": (
        "Hallo, schön, dich zu sehen! Worüber möchtest du heute mit mir sprechen?",
        "Das habe ich leider nicht verstanden. Kannst du es noch einmal sagen?",
        "Interessant! Erzähl mir gern mehr darüber, ich habe viel Zeit.",
        "Dazu weiß ich nichts, aber wir können gern über etwas anderes reden.",
    ),
    "fr": (
        "Salut, ravie de te voir ! De quoi veux-tu parler avec moi ?",
        "Excuse-moi, je n'ai pas bien compris. Tu peux répéter ?",
        "C'est très intéressant, raconte-moi la suite, s'il te plaît.",
        "Je ne sais pas grand-chose là-dessus, mais on peut changer de sujet.",
    ),
    "es": (
        "¡Hola, qué alegría verte! ¿De qué te gustaría hablar conmigo?",
        "Perdona, no te he entendido bien. ¿Puedes repetirlo?",
        "Qué interesante. Cuéntame más, tengo todo el tiempo del mundo.",
        "De eso no sé nada, pero podemos hablar de otra cosa.",
    ),
    "it": (
        "Ciao, che bello vederti! Di che cosa vuoi parlare con me?",
        "Scusa, non ho capito bene. Puoi ripetere, per favore?",
        "Che cosa interessante, raccontami ancora qualcosa.",
        "Non ne so molto, però possiamo cambiare argomento.",
    ),
    "pl": (
        "Cześć, jak miło cię widzieć! O czym chcesz ze mną porozmawiać?",
        "Przepraszam, nie zrozumiałam. Możesz powtórzyć?",
        "To bardzo ciekawe, opowiedz mi o tym coś więcej.",
        "Niewiele o tym wiem, ale możemy zmienić temat.",
    ),
    "cmn": (
        "你好,很高兴见到你!你想和我聊些什么呢?",
        "对不起,我没有听清楚,你可以再说一遍吗?",
        "真有意思,请你多给我讲一讲这件事情。",
        "这个问题我不太了解,我们换一个话题吧。",
    ),
    "ja": (
        "こんにちは、おあいできてうれしいです。なんのはなしをしましょうか。",
        "すみません、よくききとれませんでした。もういちどおねがいします。",
        "とてもおもしろいですね。もっときかせてください。",
        "それについてはよくわかりません。べつのはなしをしましょう。",
    ),
}
"""By language: what an avatar with a mind of its own says instead."""


def tuning(sentences: Sequence[str]) -> tuple[str, ...]:
    """Those on which numbers may be chosen: every other one, from the first."""
    return tuple(sentences[::2])


def proof(sentences: Sequence[str]) -> tuple[str, ...]:
    """Those on which numbers are tried: every other one, from the second."""
    return tuple(sentences[1::2])
