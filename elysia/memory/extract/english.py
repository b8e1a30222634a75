"""Facts in an English sentence: patterns of how people speak of themselves, and the slots that they fill.

Patterns read one clause at a time. Names and places need their capital letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from elysia.memory.dates import find_date_ranges, get_local_date
from elysia.memory.extract.slots import UserFact, build_slot_name

# Alternations that the patterns below are built from.
PETS = (
    "dog|puppy|cat|kitten|rabbit|bunny|hamster|parrot|tortoise|turtle|goldfish|fish|bird|budgie|guinea pig|"
    "ferret|horse|pony|snake|lizard|gecko|greyhound|labrador|retriever|corgi|poodle|terrier|spaniel|beagle|"
    "collie|husky|dachshund|bulldog|chihuahua"
)
PARTNERS = "partner|wife|husband|boyfriend|girlfriend|fianc[ée]e?|spouse"
FAMILY = (
    "mother|mum|mom|father|dad|brother|sister|son|daughter|baby|grandmother|grandma|grandfather|grandpa|"
    "uncle|aunt|cousin|nephew|niece|twin"
)
OTHERS = "best friend|roommate|flatmate|boss|colleague|teacher|supervisor"
JOB = (
    r"(?:[a-z-]+ ){0,3}?(?:nurse|chef|cook|doctor|pilot|student|pupil|vet|judge|soldier|lawyer|attorney|"
    r"accountant|journalist|translator|architect|musician|guide|clerk|surgeon|dentist|professor|lecturer|"
    r"librarian|electrician|plumber|carpenter|freelancer|undergraduate|postgrad|intern|secretary|consultant|"
    r"analyst|researcher|scientist|[a-z]{3,}(?:ist|ian|eer|ologist)|teacher|writer|driver|manager|designer|"
    r"developer|programmer|painter|singer|dancer|farmer|baker|waiter|waitress|engineer|photographer|"
    r"police officer|firefighter|actor|author|editor|director|instructor|counsell?or|conductor|barista|"
    r"tutor|coach|trainer|builder|welder|sailor|tailor|hairdresser|housewife)"
)
ILLNESS = (
    "asthma|diabetes|migraines?|depression|anxiety|epilepsy|arthritis|insomnia|anaemia|anemia|"
    "eczema|hay fever|high blood pressure|"
    "low blood pressure|adhd|autism|celiac disease|coeliac disease|tinnitus|cancer|dyslexia"
)
BODY = "knee|ankle|back|shoulder|wrist|arm|leg|foot|hip|neck|stomach|tooth|eye|ear|hand|finger|toe"
LANGUAGES = (
    "english|chinese|mandarin|cantonese|french|german|spanish|italian|japanese|korean|russian|portuguese|"
    "arabic|dutch|swedish|polish|turkish|hindi|greek|latin|welsh|irish|vietnamese|thai|hebrew|danish|"
    "norwegian|finnish|czech|ukrainian"
)
MEANS = (
    r"(?:really|absolutely|actually|also|still|just|only|now|currently|always|usually|honestly|"
    r"recently|finally|already|simply|kind of|quite|do|especially|mostly)"
)

ADV = rf"(?:{MEANS} )*"
NAME = r"(?P<name>[A-Z][\w'-]+(?: [A-Z][\w'-]+){0,2})"
PLACE = r"(?P<place>(?:[a-z]+ ){0,3}?[A-Z][\w' -]*(?:, [A-Z][\w ]+)?)"
AM = r"I(?:'m| am|'ve| have|'d)?"

# Taken off the front of a clause.
FILLER = re.compile(
    r"^(?:(?:hi|hello|hey|well|oh|okay|ok|yes|yeah|no|sorry|actually|anyway|so|and|but|also|by the way|btw|"
    r"honestly|to be honest|in fact|thanks|thank you|you know|these days|nowadays|today|now|i mean|besides|"
    r"because|since|for me|personally)\b[, !]*)+",
    re.I,
)
# Clauses that state no fact of now: questions, suppositions, what others say, the past.
ASKS = re.compile(
    r"^(?:what|who|where|when|why|how|which|do|does|did|is|are|am|can|could|would|will|should|"
    r"have|has|guess)\b(?! not)",
    re.I,
)
SUPPOSED = re.compile(
    r"\b(?:if|imagine|suppose|supposing|wish|hope|dream(?:ed|t)?|would|could|might|maybe|perhaps|unless|"
    r"as though|as if|were I|almost|nearly)\b",
    re.I,
)
REPORTED = re.compile(
    r"^(?!I\b)(?:[A-Z]?[\w' ]{0,40}?)\b(?:said|says|told|tells|thinks?|thought|asked|asks|"
    r"claims?|believes?|wrote)\b",
    re.I,
)
PAST = re.compile(
    r"\b(?:used to|once|years ago|back then|when I was|as a child|formerly|previously)\b", re.I
)
# Where a sentence is divided into clauses.
CLAUSES = re.compile(
    r",\s+(?:and|but|so|because|though|although|while|which|who)\s+|\s+(?:and|but|so|because|"
    r"though)\s+(?=I\b|I'm|my\b|we\b|it's\b)|"
    r",\s+(?=I\b|I'm|my\b|we\b|it's\b|you\b|he\b|she\b|they\b)|\s+[—–-]\s+|:\s+"
)
# "I like you", "I love talking": not things that somebody likes.
HOLLOW = re.compile(
    r"^(?:(?-i:the)\b|you|it|that|this|them|him|her|those|these|what|how|when|to talk|talking|chatting|"
    r"to chat|your|me|us|one|so|there|the|then|to|my|a few|which|such|like|especially|who|making mistakes|"
    r"each other|everything|something|anything|nothing|all|both|if)\b",
    re.I,
)
# "I'm Sorry", "I'm Chinese": capitalized, but no name.
NOT_NAME = re.compile(
    r"^(?:I|Not|Sorry|Sure|Glad|Happy|Sad|Tired|Back|Here|Fine|OK|Okay|Good|Chinese|English|American|"
    r"British|French|German|Japanese|Korean|Russian|Italian|Spanish|Christian|Muslim|Jewish|Buddhist|Irish|"
    r"Scottish|Welsh|Canadian|Australian|Indian|AI|Later|When|If|Crazy|Maybe|Tomorrow|Tonight|Now|Anytime)\b"
)

Rule = tuple[re.Pattern[str], str, float]

# Over a whole clause: pattern, slot, importance.
RULES: list[Rule] = [
    (re.compile(pattern.replace("~", " ")), slot, importance)
    for pattern, slot, importance in (
        (rf"^(?i:my (?:real |full |first )?name(?:'s| is)(?: {MEANS})*) {NAME}$", "name", 0.95),
        (rf"^(?i:(?:I'm|I am|this is|it's)) {ADV}{NAME}$", "name", 0.85),
        (rf"^(?i:(?:you can |please |just |everyone |everybody |people |my friends |they "
         rf")*calls? me) {NAME}(?: instead)?$", "called", 0.9),
        (rf"^(?i:I think you can call me) {NAME}$", "called", 0.9),
        (r"^(?:I'm|I am|I) (?:now |just |almost |already |only )*(?:turned |turning )?\d{1,3}(?: "
         r"years? old| this year| now| today)?$", "age", 0.8),
        (r"^(?i:my birthday(?:'s| is)(?: on| in)?) .{2,30}$", "birthday", 0.9),
        (r"^I was born (?:on|in) (?:the )?[\w ]*(?:\d|January|February|March|April|May|June|July|"
         r"August|September|October|November|December).{0,20}$", "birthday", 0.85),
        (rf"^(?:{AM}|We|We've|we|we've) {ADV}(?:live|living|moved(?: back)?|based|settled(?: down)?|"
         rf"relocated|reside|staying permanently) (?:\w+ )?(?:with my [\w ]{{3,20}} |from [A-Z]\w+ )?(?:in|"
         rf"to|at|near|by|on) {PLACE}.{{0,30}}$", "home", 0.9),
        (rf"^I (?:don't|no longer) live in {PLACE}(?: any ?more)?$", "home", 0.85),
        (rf"^(?:(?:{AM}) {ADV}(?:come |originally |comes? )*from|I grew up in|I was born(?: and "
         rf"raised)? in|(?i:my home ?town is)) {PLACE}.{{0,20}}$", "origin", 0.8),
        (rf"^(?:I'm|I am|I've become|I became) {ADV}(?:an? |the )(?i:{JOB})(?: (?:at|in|for|with|"
         rf"by|from|of)\b.{{1,50}})?$", "job", 0.85),
        (r"^I (?:now |currently |still |also |actually )*(?:work|teach|started working|got a job|"
         r"run my own|own an?) (?:\S+ ?){1,10}$", "job", 0.85),
        (r"^(?:I|I've|I have) (?:just |finally |recently )*(?:got|started|landed|accepted) "
         r"(?:the|a|my) (?:new )?(?:[\w-]+ )?job\b.{0,60}$", "job", 0.85),
        (r"^(?:I|I've|I have|I was|I'm) (?:just |finally |recently )*(?:quit|left|lost) my "
         r"job.{0,40}$", "job", 0.85),
        (r"^(?:I|I've|I have|I was|I'm|I am) (?:just |finally |recently |now )*(?:retired|"
         r"unemployed|laid off|fired).{0,30}$", "job", 0.85),
        (r"^(?:I|I'm|I am|I've|I have) (?:now |currently |just )*(?:study|studying|go to|"
         r"graduated from|enrolled (?:at|in)|attend) .{0,40}?(?:University|College|School|"
         r"Academy|Institute).{0,30}$", "school", 0.8),
        (r"^(?:I|I'm|I am) (?:now |currently )*(?:study|studying|majoring in|major in) (?:for "
         r")?[\w ]{3,40}$", "major", 0.75),
        (r"^(?:I|We|we|I've|We've|we've|I'm|We're|we're) (?:just |recently |finally |now |both "
         r")*(?:got |getting )?(?:broke up|broken up|split up|divorced|married|engaged|"
         r"separated)(?: (?:with|to|from) .{2,30})?.{0,20}$", "partner", 0.9),
        (r"^(?:I'm|I am) (?:still |now |currently |happily )*(?:single|married|divorced|widowed|"
         r"engaged)$", "partner", 0.9),
        (rf"^(?:I|I've) (?:don't |do not |no longer )?(?:have|got|have got) (?:a |no |any |a new "
         rf")?(?i:{PARTNERS})(?: (?:now|any ?more|yet))?$", "partner", 0.85),
        (r"^(?:I|I've|We|we) (?:don't |do not )?(?:have|got|have got) (?:no|any|an?|one|two|"
         r"three|four|five|\d)? ?(?:little |small |young |grown |older )*(?:kids?|child|children|"
         r"sons?|daughters?|twins)\b.{0,30}$", "children", 0.85),
        (r"^(?:I'm an only child|I(?:'ve| have)(?: got)? (?:no|an?|one|two|three|\d) (?:(?:older|younger|"
         r"little|big|elder) )?(?:brothers?|sisters?|siblings?)(?: and .{3,20})?)$", "siblings", 0.75),
        (r"^(?:I'm|I am) (?:\w+ weeks |\w+ months )?pregnant.{0,20}$", "health:pregnancy", 0.9),
        (r"^(?:I'm|I am|I've become|I became) (?:now |also |actually |a |an )*(?:strict "
         r")?(?:vegetarian|vegan|pescatarian|teetotal)(?: now)?$", "diet", 0.85),
    )
]  # fmt: skip

# People and pets. `rel` is the relation, `kind` the animal.
RELATION = re.compile(
    rf"^(?i:my) (?:[a-z]+ )?(?P<rel>{PARTNERS}|{FAMILY}|{OTHERS})(?:'s name is| is called| is "
    rf"named| is|,)? (?P<name>[A-Z][\w'-]+)\b"
)
PRONOUN = re.compile(r"^(?:His|Her|Their|her|his) name is (?P<name>[A-Z][\w'-]+)$")
MENTIONED = re.compile(rf"\b[Mm]y (?:[a-z]+ )?(?P<rel>{PARTNERS}|{FAMILY}|{PETS})\b")
PET = re.compile(
    rf"\b(?:I|We|we)(?:'ve| have)?(?: just| recently| also| now)? (?:have|got|own|adopted|keep|bought|"
    rf"rescued) (?:an?|two|three|one|another|\d+) (?:[\w-]+ ){{0,4}}?(?P<kind>{PETS})s?\b(?:[\w ,]{{0,20}}? "
    rf"(?:called|named) (?P<name>[A-Z][\w'-]+))?"
)
MY_PET = re.compile(
    rf"\b(?i:my|our) (?:[a-z]+ )?(?P<kind>{PETS})(?:'s name is| is called| is named| is|,)? "
    rf"(?P<name>[A-Z][\w'-]+)\b"
)
GONE = re.compile(
    rf"^(?i:my) (?:[a-z]+ )?(?P<rel>{FAMILY}|{PARTNERS}|{PETS}) (?:[A-Z]\w+ )?(?:has |had |just )*"
    r"(?:died|passed away|ran away)\b"
)
# In a sentence without capitals, the next word gets one.
SMALL = re.compile(
    r"\b(my name is|my name's|call me|live in|living in|moved to|come from|i'm from|i am from) ([a-z])"
)
PET_GONE = re.compile(
    r"^(?P<name>[A-Z][\w'-]+) (?:has |was |had )*(?:died|passed away|ran away|put to sleep)\b"
)
# Likes, habits and health. A statement and its contrary fill the same slot.
THING = r"(?P<thing>[^;]{2,120})"
TASTE = re.compile(
    rf"^I {ADV}(?P<not>(?:don't|do not|no longer|never|can't|cannot|didn't) )?{ADV}(?P<verb>like|"
    rf"love|enjoy|adore|prefer|hate|dislike|detest|"
    rf"(?<=n't )stand|(?<=n't )bear|(?<=cannot )stand|fear)(?P<to> to)? {THING}"
)
STANCE = re.compile(
    rf"^(?:I'm|I am) {ADV}(?P<verb>fond of|crazy about|into|keen on|a (?:big |huge )?fan of|"
    rf"afraid of|scared of|obsessed with|tired of|not (?:a fan of|fond of|keen on|into)) {THING}"
)
FAVOURITE = re.compile(
    rf"^(?i:my (?:all-time )?favou?rite) (?P<kind>[\w ]{{2,30}}?)(?: is| are|'s) {THING}"
)
REFUSED = re.compile(
    rf"^I(?:'ve| have)? {ADV}(?:don't (?:eat|drink|smoke)|never (?:eat|drink|smoke)|gave up|"
    rf"given up|quit|stopped(?: eating| drinking| smoking)?|no longer (?:eat|drink|smoke)) {THING}"
)
HABIT = re.compile(
    rf"^I {ADV}(?:(?P<take>drink|eat|smoke)(?: far| way)?(?: too much| too many| a lot of|"
    rf" lots of) (?P<thing>[\w ]{{2,30}})|(?P<verb>[a-z]+)(?<!have)(?<!had)(?<!feel)[^,;]{{0,50}}? (?:every|"
    rf"each) (?:day|morning|evening|night|week|weekend|[A-Z][a-z]+day)\b)"
)
STOPPED = re.compile(
    rf"^I(?:'ve| have)? {ADV}(?:stopped|given up|gave up|don't|no longer) (?P<what>[a-z]+)(?: "
    rf"\w+)?(?: any ?more)?$"
)
ALLERGY = re.compile(
    rf"^(?:I'm|I am) {ADV}(?:not |no longer )?(?:\w+ )?allergic to {THING}|^I have an? "
    rf"(?P<of>[\w ]{{3,20}}) allergy"
)
ILL = re.compile(
    rf"^I(?:'ve| have)? {ADV}(?:have|got|suffer from|been diagnosed with|was diagnosed with) "
    rf"(?:\w+ )?(?P<thing>{ILLNESS})\b",
    re.I,
)
ACHING = re.compile(
    rf"^(?:I(?:'ve| have)? {ADV}(?:twisted|broke|broken|sprained|hurt|injured|tore|torn|"
    rf"dislocated) my (?:left |right )?(?P<one>{BODY})|(?i:my) (?:left |right )?(?P<two>{BODY}) (?:is|has|"
    rf"hurts|still|feels|aches)\b.{{0,30}}|(?P<three>{BODY}) is (?:fine|better|healed).{{0,20}})",
    re.I,
)
LANGUAGE = re.compile(
    rf"^(?:I|I'm|I am|I've been|I have been) {ADV}(?:don't )?(?:speak|learning|studying|learn) "
    rf"(?:fluent |some |a little )?(?P<thing>{LANGUAGES})\b",
    re.I,
)
# Plans: facts only with a day that is still to come.
PLAN = re.compile(
    r"^(?:I'm|I am|I|I've|I have|I'll|We're|we're|We|we|We'll|we'll) (?:(?:also|now|just|still|finally|"
    r"probably) )*(?:going to|planning (?:to|on)|will|have|got|am|'ll|moving|flying|starting|start|getting|"
    r"leaving|visiting|training for|booked|meeting|see|move|decided to|seeing)\b"
)
CANCELLED = re.compile(
    r"^(?:I|We|we|I've|We've|we've) (?:have )?(?:dropped|cancelled|canceled|called off|gave up on) (?:the|"
    r"my|our) (?P<a>[\w ]{3,30})$|^(?:The|the|My|my|Our|our) (?P<b>[\w ]{3,30}?) (?:was|is|has been|"
    r"got) (?:cancelled|canceled|called off)\b"
)
EVENT = re.compile(
    r"^(?:(?:My|my|The|the|Our|our) )?(?P<event>[\w ]{3,30}?) (?:(?:is|was|has been|have been|"
    r"got|is now) )?(?:on|moved to|postponed to|put off to|brought forward to|scheduled for|"
    r"rescheduled to|set for)\b"
)
SPLIT = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+|\s+or\s+")
# Taken off the end of a thing that is liked.
TAIL = re.compile(
    r"\s+(?:any ?more|now|a lot|very much|so much|too|as well|these days|recently|lately|the most|best|"
    r"at all|though|because .*|when .*|sometimes|since .*|such as .*|in the .*|with friends?|but .*|"
    r"which .*|that .*|like \".*|especially .*)$",
    re.I,
)


def extract_english(sentence: str, is_question: bool, at: float) -> Iterator[UserFact]:
    """The facts of one sentence, written at `at` (seconds since 1970). A question states none in its
    last clause.
    """
    sentence = sentence.replace("’", "'")
    if sentence == sentence.lower():
        sentence = SMALL.sub(lambda match: f"{match[1]} {match[2].upper()}", sentence)
        sentence = re.sub(r"\bi\b", "I", sentence)
    if SUPPOSED.search(sentence):
        return
    clauses = [part.strip(" ,") for part in CLAUSES.split(sentence) if part.strip(" ,")]
    for n, clause in enumerate(clauses, 1):
        if REPORTED.search(clause):
            return  # what follows are somebody else's words
        body = FILLER.sub("", clause).strip(" ,!")
        if (is_question and n == len(clauses)) or ASKS.search(body) or PAST.search(body):
            continue
        yield from _find_own(body)
        yield from _find_people(body, sentence)
        yield from _find_plans(body, at)


def _find_own(clause: str) -> Iterator[UserFact]:
    for pattern, slot, importance in RULES:
        match = pattern.search(clause)
        # "I'm Nora, I teach" was divided; "I'm Nora the brave" is a joke.
        if match and not (slot in ("name", "called") and NOT_NAME.search(match["name"])):
            yield UserFact(slot, clause, importance)
            return
    for pattern, kind, importance in (
        (ALLERGY, "allergy", 0.95),
        (ILL, "health", 0.9),
        (ACHING, "health", 0.7),
        (LANGUAGE, "language", 0.7),
    ):
        if match := pattern.search(clause):
            thing = next(group for group in match.groups() if group)
            yield UserFact(f"{kind}:{build_slot_name(TAIL.sub('', thing))}", clause, importance)
            return
    yield from _find_tastes(clause)


def _find_tastes(clause: str) -> Iterator[UserFact]:
    if match := FAVOURITE.search(clause):
        yield UserFact(f"favourite:{build_slot_name(match['kind'])}", clause, 0.75)
    elif match := REFUSED.search(clause):
        yield UserFact(f"taste:{build_slot_name(TAIL.sub('', match['thing']))}", clause, 0.75)
    elif match := TASTE.search(clause) or STANCE.search(clause):
        lead = clause[: match.start("thing")]
        for thing in _split_list(match):
            yield UserFact(_taste_slot(thing), lead + thing, 0.7)
    elif match := HABIT.search(clause):
        # What somebody drinks a lot of and what they gave up are one slot.
        habit = f"habit:{build_slot_name(match['verb'] or '')}"
        yield UserFact(_taste_slot(match["thing"]) if match["take"] else habit, clause, 0.6)
    elif match := STOPPED.search(clause):
        activity = build_slot_name(match["what"]).split()[0]
        yield UserFact(f"habit:{activity}", clause, 0.6, against=activity)


def _split_list(match: re.Match[str]) -> Iterator[str]:
    """What is liked: one thing, or several with commas between them."""
    whole = TAIL.sub("", match["thing"])
    is_activity = "to" in match.re.groupindex and match["to"]
    for thing in [re.split(",| and ", whole)[0]] if is_activity else SPLIT.split(whole):
        if not thing or HOLLOW.search(thing) or len(thing.split()) > 5:
            return  # the list has ended
        yield thing


def _taste_slot(thing: str) -> str:
    verbs = r"^(?:eating|drinking|watching|reading|playing|listening to|doing|to \w+|going to)\s+"
    return "taste:" + build_slot_name(TAIL.sub("", re.sub(verbs, "", thing.strip())))


def _find_people(clause: str, sentence: str) -> Iterator[UserFact]:
    for pattern in (PET, MY_PET):
        match = pattern.search(clause)
        if match and not re.search(r"\b(?:not|never|don't|want)\b", clause[: match.end()]):
            yield UserFact(f"pet:{match['name'] or match['kind']}", match.group().strip(), 0.85)
            return
    if match := GONE.search(clause):
        is_pet = re.fullmatch(PETS, match["rel"])
        slot = "pet:*" if is_pet else f"family:{match['rel']}:gone"
        yield UserFact(slot, clause, 0.9, against=match["rel"] if is_pet else None)
    elif match := PET_GONE.search(clause):
        yield UserFact(f"pet:{match['name']}", clause, 0.85, against=match["name"])
    elif match := RELATION.search(clause):
        if not NOT_NAME.search(match["name"]):
            yield _build_relative(match["rel"], match["name"])
    elif match := PRONOUN.search(clause):
        before = list(MENTIONED.finditer(sentence))
        if before:
            yield _build_relative(before[-1]["rel"], match["name"])


def _build_relative(relation: str, name: str) -> UserFact:
    text = f"My {relation} is called {name}"
    if re.fullmatch(PARTNERS, relation):
        return UserFact("partner", text, 0.9)
    if re.fullmatch(PETS, relation):
        return UserFact(f"pet:{name}", text, 0.85)
    if re.fullmatch(OTHERS, relation):
        return UserFact(f"acquaintance:{relation}:{name}", text, 0.6)
    relation = {"mum": "mother", "mom": "mother", "dad": "father"}.get(relation, relation)
    # There may be two sisters, but only one mother.
    is_unique = relation in ("mother", "father")
    return UserFact(f"family:{relation}:{'name' if is_unique else name}", text, 0.85)


def _find_plans(clause: str, at: float) -> Iterator[UserFact]:
    if match := CANCELLED.search(clause):
        yield UserFact("plan:*", clause, 0.75, against=(match["a"] or match["b"]).split()[-1])
        return
    today = get_local_date(at)
    days = [day for day in find_date_ranges(clause, at, ahead=True) if day.last > today]
    if not days:
        return
    if match := EVENT.search(clause):
        event = build_slot_name(match["event"]).split()
        if event and event[0] not in ("i", "we", "he", "she", "they", "it"):
            yield UserFact(f"plan:{event[-1]}", _append_date(clause, at), 0.8)
            return
    if PLAN.search(clause):
        rest = PLAN.sub("", clause).replace(days[0].words, "")
        words = [word for word in build_slot_name(rest).split() if len(word) > 2 and word != "for"]
        words = words or build_slot_name(clause.replace(days[0].words, "")).split()[1:]
        if words and not re.search(r"\b(?:talk|chat|speak)\b|\bsee you\b", clause):
            yield UserFact(f"plan:{' '.join(words[:3])}", _append_date(clause, at), 0.75)


def _append_date(text: str, at: float) -> str:
    """`text` with the date it means, where its words ("tomorrow") will mean another date later."""
    for day in find_date_ranges(text, at, ahead=True):
        if not re.search(r"\d", day.words) or "ago" in day.words:
            dates = f"{day.first}" if day.first == day.last else f"{day.first} to {day.last}"
            return f"{text} ({dates})"
    return text
