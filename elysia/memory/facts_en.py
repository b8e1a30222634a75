"""Facts in an English sentence: a rule is a pattern over a clause, and the slot it fills.

Knows nothing of other languages or of where facts are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from elysia.memory.facts import Fact, about
from elysia.memory.when import day_of, spans

PETS = (
    "dog|puppy|cat|kitten|rabbit|bunny|hamster|parrot|tortoise|turtle|goldfish|fish|bird|budgie|guinea pig|ferret|horse|pony|snake|"
    "lizard|gecko|greyhound|labrador|retriever|corgi|poodle|terrier|spaniel|beagle|collie|husky|dachshund|bulldog|chihuahua"
)
PARTNERS = "partner|wife|husband|boyfriend|girlfriend|fianc[ée]e?|spouse"
FAMILY = (
    "mother|mum|mom|father|dad|brother|sister|son|daughter|baby|grandmother|grandma|grandfather|grandpa|uncle|aunt|cousin|nephew|"
    "niece|twin"
)
OTHERS = "best friend|roommate|flatmate|boss|colleague|teacher|supervisor"
JOB = (
    r"(?:[a-z-]+ ){0,3}?(?:nurse|chef|cook|doctor|pilot|student|pupil|vet|judge|soldier|lawyer|attorney|accountant|journalist|"
    r"translator|architect|musician|guide|clerk|surgeon|dentist|professor|lecturer|librarian|electrician|plumber|carpenter|"
    r"freelancer|undergraduate|postgrad|intern|secretary|consultant|analyst|researcher|scientist|"
    r"[a-z]{3,}(?:ist|ian|eer|ologist)|teacher|writer|driver|manager|designer|developer|programmer|painter|singer|dancer|farmer|"
    r"baker|waiter|waitress|engineer|photographer|police officer|firefighter|actor|author|editor|director|instructor|counsell?or|"
    r"conductor|barista|tutor|coach|trainer|builder|welder|sailor|tailor|hairdresser|housewife)"
)
ILLNESS = (
    "asthma|diabetes|migraines?|depression|anxiety|epilepsy|arthritis|insomnia|anaemia|anemia|eczema|hay fever|high blood pressure|"
    "low blood pressure|adhd|autism|celiac disease|coeliac disease|tinnitus|cancer|dyslexia"
)
BODY = "knee|ankle|back|shoulder|wrist|arm|leg|foot|hip|neck|stomach|tooth|eye|ear|hand|finger|toe"
LANGUAGES = (
    "english|chinese|mandarin|cantonese|french|german|spanish|italian|japanese|korean|russian|portuguese|arabic|dutch|swedish|"
    "polish|turkish|hindi|greek|latin|welsh|irish|vietnamese|thai|hebrew|danish|norwegian|finnish|czech|ukrainian"
)
MEANS = r"(?:really|absolutely|actually|also|still|just|only|now|currently|always|usually|honestly|recently|finally|already|simply|kind of|quite|do|especially|mostly)"

_ADV = rf"(?:{MEANS} )*"
_NAME = r"(?P<name>[A-Z][\w'-]+(?: [A-Z][\w'-]+){0,2})"
_PLACE = r"(?P<place>(?:[a-z]+ ){0,3}?[A-Z][\w' -]*(?:, [A-Z][\w ]+)?)"
_AM = r"I(?:'m| am|'ve| have|'d)?"

_FILLER = re.compile(
    r"^(?:(?:hi|hello|hey|well|oh|okay|ok|yes|yeah|no|sorry|actually|anyway|so|and|but|also|by the way|btw|honestly|to be honest|"
    r"in fact|thanks|thank you|you know|these days|nowadays|today|now|i mean|besides|because|since|for me|personally)\b[, !]*)+",
    re.I,
)
_ASKS = re.compile(
    r"^(?:what|who|where|when|why|how|which|do|does|did|is|are|am|can|could|would|will|should|have|has|guess)\b(?! not)",
    re.I,
)
_SUPPOSED = re.compile(
    r"\b(?:if|imagine|suppose|supposing|wish|hope|dream(?:ed|t)?|would|could|might|maybe|perhaps|unless|as though|as if|were I|"
    r"almost|nearly)\b",
    re.I,
)
_REPORTED = re.compile(
    r"^(?!I\b)(?:[A-Z]?[\w' ]{0,40}?)\b(?:said|says|told|tells|thinks?|thought|asked|asks|claims?|believes?|wrote)\b",
    re.I,
)
_PAST = re.compile(
    r"\b(?:used to|once|years ago|back then|when I was|as a child|formerly|previously)\b", re.I
)
_CLAUSES = re.compile(
    r",\s+(?:and|but|so|because|though|although|while|which|who)\s+|\s+(?:and|but|so|because|though)\s+(?=I\b|I'm|my\b|we\b|it's\b)|"
    r",\s+(?=I\b|I'm|my\b|we\b|it's\b|you\b|he\b|she\b|they\b)|\s+[—–-]\s+|:\s+",
)
_HOLLOW = re.compile(
    r"^(?:(?-i:the)\b|you|it|that|this|them|him|her|those|these|what|how|when|to talk|talking|chatting|to chat|your|me|us|one|so|there|"
    r"the|then|to|my|a few|which|such|like|especially|who|making mistakes|each other|everything|something|anything|nothing|all|both|if)\b",
    re.I,
)
_NOT_NAME = re.compile(
    r"^(?:I|Not|Sorry|Sure|Glad|Happy|Sad|Tired|Back|Here|Fine|OK|Okay|Good|Chinese|English|American|British|French|German|Japanese|"
    r"Korean|Russian|Italian|Spanish|Christian|Muslim|Jewish|Buddhist|Irish|Scottish|Welsh|Canadian|Australian|Indian|AI)\b"
)

Rule = tuple[re.Pattern[str], str, float]

# Over a whole clause; names and places need their capital.
RULES: list[Rule] = [
    (re.compile(pattern.replace("~", " ")), slot, importance)
    for pattern, slot, importance in (
        (rf"^(?i:my (?:real |full |first )?name(?:'s| is)(?: {MEANS})*) {_NAME}$", "name", 0.95),
        (rf"^(?i:(?:I'm|I am|this is|it's)) {_ADV}{_NAME}$", "name", 0.85),
        (rf"^(?i:(?:you can |please |just |everyone |everybody |people |my friends |they )*calls? me) {_NAME}(?: instead)?$", "called", 0.9),
        (rf"^(?i:I think you can call me) {_NAME}$", "called", 0.9),
        (r"^(?:I'm|I am|I) (?:now |just |almost |already |only )*(?:turned |turning )?\d{1,3}(?: years? old| this year| now| today)?$", "age", 0.8),
        (r"^(?i:my birthday(?:'s| is)(?: on| in)?) .{2,30}$", "birthday", 0.9),
        (r"^I was born (?:on|in) (?:the )?[\w ]*(?:\d|January|February|March|April|May|June|July|August|September|October|November|December).{0,20}$", "birthday", 0.85),
        (rf"^(?:{_AM}|We|We've|we|we've) {_ADV}(?:live|living|moved(?: back)?|based|settled(?: down)?|relocated|reside|staying permanently) (?:\w+ )?(?:in|to|at|near|by|on) {_PLACE}.{{0,30}}$", "home", 0.9),
        (rf"^I (?:don't|no longer) live in {_PLACE}(?: any ?more)?$", "home", 0.85),
        (rf"^(?:(?:{_AM}) {_ADV}(?:come |originally |comes? )*from|I grew up in|I was born(?: and raised)? in|(?i:my home ?town is)) {_PLACE}.{{0,20}}$", "origin", 0.8),
        (rf"^(?:I'm|I am|I've become|I became) {_ADV}(?:an? |the )(?i:{JOB})(?: (?:at|in|for|with|by|from|of)\b.{{1,50}})?$", "job", 0.85),
        (r"^I (?:now |currently |still |also |actually )*(?:work|teach|started working|got a job|run my own|own an?) (?:\S+ ?){1,10}$", "job", 0.85),
        (r"^(?:I|I've|I have) (?:just |finally |recently )*(?:got|started|landed|accepted) (?:the|a|my) (?:new )?(?:[\w-]+ )?job\b.{0,60}$", "job", 0.85),
        (r"^(?:I|I've|I have|I was|I'm) (?:just |finally |recently )*(?:quit|left|lost) my job.{0,40}$", "job", 0.85),
        (r"^(?:I|I've|I have|I was|I'm|I am) (?:just |finally |recently |now )*(?:retired|unemployed|laid off|fired).{0,30}$", "job", 0.85),
        (r"^(?:I|I'm|I am|I've|I have) (?:now |currently |just )*(?:study|studying|go to|graduated from|enrolled (?:at|in)|attend) .{0,40}?(?:University|College|School|Academy|Institute).{0,30}$", "school", 0.8),
        (r"^(?:I|I'm|I am) (?:now |currently )*(?:study|studying|majoring in|major in) (?:for )?[\w ]{3,40}$", "major", 0.75),
        (r"^(?:I|We|we|I've|We've|we've|I'm|We're|we're) (?:just |recently |finally |now |both )*(?:got |getting )?(?:broke up|broken up|split up|divorced|married|engaged|separated)(?: (?:with|to|from) .{2,30})?.{0,20}$", "partner", 0.9),
        (r"^(?:I'm|I am) (?:still |now |currently |happily )*(?:single|married|divorced|widowed|engaged)$", "partner", 0.9),
        (rf"^(?:I|I've) (?:don't |do not |no longer )?(?:have|got|have got) (?:a |no |any |a new )?(?i:{PARTNERS})(?: (?:now|any ?more|yet))?$", "partner", 0.85),
        (r"^(?:I|I've|We|we) (?:don't |do not )?(?:have|got|have got) (?:no|any|an?|one|two|three|four|five|\d)? ?(?:little |small |young |grown |older )*(?:kids?|child|children|sons?|daughters?|twins)\b.{0,30}$", "children", 0.85),
        (r"^(?:I'm an only child|I(?:'ve| have)(?: got)? (?:no|an?|one|two|three|\d) (?:(?:older|younger|little|big|elder) )?(?:brothers?|sisters?|siblings?)(?: and .{3,20})?)$", "siblings", 0.75),
        (r"^(?:I'm|I am) (?:\w+ weeks |\w+ months )?pregnant.{0,20}$", "health:pregnancy", 0.9),
        (r"^(?:I'm|I am|I've become|I became) (?:now |also |actually |a |an )*(?:strict )?(?:vegetarian|vegan|pescatarian|teetotal)(?: now)?$", "diet", 0.85),
    )
]  # fmt: skip

_RELATION = re.compile(
    rf"^(?i:my) (?:[a-z]+ )?(?P<rel>{PARTNERS}|{FAMILY}|{OTHERS})(?:'s name is| is called| is named| is|,)? (?P<name>[A-Z][\w'-]+)\b"
)
_PRONOUN = re.compile(r"^(?:His|Her|Their|her|his) name is (?P<name>[A-Z][\w'-]+)$")
_MENTIONED = re.compile(rf"\b[Mm]y (?:[a-z]+ )?(?P<rel>{PARTNERS}|{FAMILY}|{PETS})\b")
_PET = re.compile(
    rf"\b(?:I|We|we)(?:'ve| have)?(?: just| recently| also| now)? (?:have|got|own|adopted|keep|bought|rescued) (?:an?|two|three|one|another|\d+) "
    rf"(?:[\w-]+ ){{0,4}}?(?P<kind>{PETS})s?\b(?:[\w ,]{{0,20}}? (?:called|named) (?P<name>[A-Z][\w'-]+))?"
)
_MY_PET = re.compile(
    rf"\b(?i:my|our) (?:[a-z]+ )?(?P<kind>{PETS})(?:'s name is| is called| is named| is|,)? (?P<name>[A-Z][\w'-]+)\b"
)
_PET_GONE = re.compile(
    r"^(?P<name>[A-Z][\w'-]+) (?:has |was |had )*(?:died|passed away|ran away|put to sleep)\b"
)
_THING = r"(?P<thing>[^;]{2,120})"
_TASTE = re.compile(
    rf"^I {_ADV}(?P<not>(?:don't|do not|no longer|never|can't|cannot|didn't) )?{_ADV}(?P<verb>like|love|enjoy|adore|prefer|hate|dislike|detest|"
    rf"(?<=n't )stand|(?<=n't )bear|(?<=cannot )stand|fear)(?P<to> to)? {_THING}"
)
_STANCE = re.compile(
    rf"^(?:I'm|I am) {_ADV}(?P<verb>fond of|crazy about|into|keen on|a (?:big |huge )?fan of|afraid of|scared of|obsessed with|tired of|not (?:a fan of|fond of|keen on|into)) {_THING}"
)
_FAVOURITE = re.compile(
    rf"^(?i:my (?:all-time )?favou?rite) (?P<kind>[\w ]{{2,30}}?)(?: is| are|'s) {_THING}"
)
_REFUSED = re.compile(
    rf"^I(?:'ve| have)? {_ADV}(?:don't (?:eat|drink|smoke)|never (?:eat|drink|smoke)|gave up|given up|quit|stopped(?: eating| drinking| smoking)?|no longer (?:eat|drink|smoke)) {_THING}"
)
_HABIT = re.compile(
    rf"^I {_ADV}(?:(?P<take>drink|eat|smoke)(?: far| way)?(?: too much| too many| a lot of| lots of) (?P<thing>[\w ]{{2,30}})|"
    rf"(?P<verb>[a-z]+)(?<!have)(?<!had)(?<!feel)[^,;]{{0,50}}? (?:every|each) (?:day|morning|evening|night|week|weekend|[A-Z][a-z]+day)\b)"
)
_STOPPED = re.compile(
    rf"^I(?:'ve| have)? {_ADV}(?:stopped|given up|gave up|don't|no longer) (?P<what>[a-z]+)(?: \w+)?(?: any ?more)?$"
)
_ALLERGY = re.compile(
    rf"^(?:I'm|I am) {_ADV}(?:not |no longer )?(?:\w+ )?allergic to {_THING}|^I have an? (?P<of>[\w ]{{3,20}}) allergy"
)
_ILL = re.compile(
    rf"^I(?:'ve| have)? {_ADV}(?:have|got|suffer from|been diagnosed with|was diagnosed with) (?:\w+ )?(?P<thing>{ILLNESS})\b",
    re.I,
)
_BODY = re.compile(
    rf"^(?:I(?:'ve| have)? {_ADV}(?:twisted|broke|broken|sprained|hurt|injured|tore|torn|dislocated) my (?:left |right )?(?P<one>{BODY})|"
    rf"(?i:my) (?:left |right )?(?P<two>{BODY}) (?:is|has|hurts|still|feels|aches)\b.{{0,30}}|(?P<three>{BODY}) is (?:fine|better|healed).{{0,20}})",
    re.I,
)
_LANGUAGE = re.compile(
    rf"^(?:I|I'm|I am|I've been|I have been) {_ADV}(?:don't )?(?:speak|learning|studying|learn) (?:fluent |some |a little )?(?P<thing>{LANGUAGES})\b",
    re.I,
)
_PLAN = re.compile(
    r"^(?:I'm|I am|I|I've|I have|I'll|We're|we're|We|we|We'll|we'll) (?:(?:also|now|just|still|finally|probably) )*(?:going to|planning (?:to|on)|will|have|got|am|'ll|moving|flying|"
    r"starting|start|getting|leaving|visiting|training for|booked|meeting|see|move|decided to|seeing)\b"
)
_CANCELLED = re.compile(
    r"^(?:I|We|we|I've|We've|we've) (?:have )?(?:dropped|cancelled|canceled|called off|gave up on) (?:the|my|our) (?P<a>[\w ]{3,30})$|"
    r"^(?:The|the|My|my|Our|our) (?P<b>[\w ]{3,30}?) (?:was|is|has been|got) (?:cancelled|canceled|called off)\b"
)
_EVENT = re.compile(
    r"^(?:(?:My|my|The|the|Our|our) )?(?P<event>[\w ]{3,30}?) (?:(?:is|was|has been|have been|got|is now) )?(?:on|moved to|postponed to|put off to|brought forward to|scheduled for|rescheduled to|set for)\b"
)
_SPLIT = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+|\s+or\s+")
_TAIL = re.compile(
    r"\s+(?:any ?more|now|a lot|very much|so much|too|as well|these days|recently|lately|the most|best|at all|though|because .*|when .*|"
    r"sometimes|since .*|such as .*|in the .*|with friends?|but .*|which .*|that .*|like \".*|especially .*)$",
    re.I,
)


def facts_en(sentence: str, asked: bool, at: float) -> Iterator[Fact]:
    """The facts of one sentence. `asked`: it ends in a question mark; `at`: when it was said."""
    sentence = sentence.replace("’", "'")
    if _SUPPOSED.search(sentence):
        return
    clauses = [part.strip(" ,") for part in _CLAUSES.split(sentence) if part.strip(" ,")]
    for place, clause in enumerate(clauses):
        if _REPORTED.search(clause):
            return
        body = _FILLER.sub("", clause).strip(" ,!")
        if (asked and place == len(clauses) - 1) or _ASKS.search(body) or _PAST.search(body):
            continue
        yield from _of_oneself(body)
        yield from _of_people(body, sentence)
        yield from _plans(body, at)


def _of_oneself(clause: str) -> Iterator[Fact]:
    for pattern, slot, importance in RULES:
        hit = pattern.search(clause)
        # "I'm Nora, I teach" was divided; "I'm Nora the brave" is a joke.
        if hit and not (slot in ("name", "called") and _NOT_NAME.search(hit["name"])):
            yield Fact(slot, clause, importance)
            return
    for pattern, kind, importance in (
        (_ALLERGY, "allergy", 0.95), (_ILL, "health", 0.9), (_BODY, "health", 0.7), (_LANGUAGE, "language", 0.7),
    ):  # fmt: skip
        if hit := pattern.search(clause):
            what = next(part for part in hit.groups() if part)
            yield Fact(f"{kind}:{about(_TAIL.sub('', what))}", clause, importance)
            return
    yield from _tastes(clause)


def _tastes(clause: str) -> Iterator[Fact]:
    if hit := _FAVOURITE.search(clause):
        yield Fact(f"favourite:{about(hit['kind'])}", clause, 0.75)
        return
    if hit := _REFUSED.search(clause):
        yield Fact(f"taste:{about(_TAIL.sub('', hit['thing']))}", clause, 0.75)
        return
    if hit := _TASTE.search(clause) or _STANCE.search(clause):
        for thing in _listed(hit):
            yield Fact(f"taste:{_object(thing)}", clause[: hit.start("thing")] + thing, 0.7)
    elif hit := _HABIT.search(clause):
        # What somebody drinks a lot of and what they gave up are one thing.
        slot = f"taste:{_object(hit['thing'])}" if hit["take"] else f"habit:{about(hit['verb'])}"
        yield Fact(slot, clause, 0.6)
    elif hit := _STOPPED.search(clause):
        deed = about(hit["what"]).split()[0]
        yield Fact(f"habit:{deed}", clause, 0.6, against=deed)


def _listed(hit: re.Match[str]) -> Iterator[str]:
    """What is liked: one thing, or several with commas between them."""
    whole = _TAIL.sub("", hit["thing"])
    to_do = "to" in hit.re.groupindex and hit["to"]
    for thing in [re.split(",| and ", whole)[0]] if to_do else _SPLIT.split(whole):
        if not thing or _HOLLOW.search(thing) or len(thing.split()) > 5:
            return  # no list any more
        yield thing


def _object(thing: str) -> str:
    thing = re.sub(
        r"^(?:eating|drinking|watching|reading|playing|listening to|doing|to \w+|going to)\s+",
        "",
        thing.strip(),
    )
    return about(_TAIL.sub("", thing))


def _of_people(clause: str, sentence: str) -> Iterator[Fact]:
    for pattern in (_PET, _MY_PET):
        hit = pattern.search(clause)
        if hit and not re.search(r"\b(?:not|never|don't|want)\b", clause[: hit.end()]):
            yield Fact(f"pet:{hit['name'] or hit['kind']}", hit.group().strip(), 0.85)
            return
    if hit := _PET_GONE.search(clause):
        yield Fact(f"pet:{hit['name']}", clause, 0.85, against=hit["name"])
    elif hit := _RELATION.search(clause):
        if not _NOT_NAME.search(hit["name"]):
            yield _relative(hit["rel"], hit["name"])
    elif hit := _PRONOUN.search(clause):
        before = list(_MENTIONED.finditer(sentence))
        if before:
            yield _relative(before[-1]["rel"], hit["name"])


def _relative(relation: str, name: str) -> Fact:
    text = f"My {relation} is called {name}"
    if re.fullmatch(PARTNERS, relation):
        return Fact("partner", text, 0.9)
    if re.fullmatch(PETS, relation):
        return Fact(f"pet:{name}", text, 0.85)
    if re.fullmatch(OTHERS, relation):
        return Fact(f"acquaintance:{relation}:{name}", text, 0.6)
    # There may be two sisters, but only one mother.
    one = relation in ("mother", "mum", "mom", "father", "dad")
    kin = {"mum": "mother", "mom": "mother", "dad": "father"}.get(relation, relation)
    return Fact(f"family:{kin}:name" if one else f"family:{kin}:{name}", text, 0.85)


def _plans(clause: str, at: float) -> Iterator[Fact]:
    if hit := _CANCELLED.search(clause):
        yield Fact("plan:*", clause, 0.75, against=(hit["a"] or hit["b"]).split()[-1])
        return
    days = [span for span in spans(clause, at, ahead=True) if span.last > day_of(at)]
    if not days:
        return
    if hit := _EVENT.search(clause):
        event = about(hit["event"]).split()
        if event and event[0] not in ("i", "we", "he", "she", "they", "it"):
            yield Fact(f"plan:{event[-1]}", dated(clause, at), 0.8)
            return
    if _PLAN.search(clause):
        rest = _PLAN.sub("", clause).replace(days[0].words, "")
        words = [word for word in about(rest).split() if len(word) > 2 and word != "for"]
        words = words or about(clause.replace(days[0].words, "")).split()[1:]
        if words and not re.search(r"\b(?:talk|chat|speak)\b|\bsee you\b", clause):
            yield Fact(f"plan:{' '.join(words[:3])}", dated(clause, at), 0.75)


def dated(text: str, at: float) -> str:
    """`text` with the day it means, where its words will mean another one tomorrow."""
    for span in spans(text, at, ahead=True):
        if not re.search(r"\d", span.words) or "ago" in span.words:
            day = f"{span.first}" if span.first == span.last else f"{span.first} to {span.last}"
            return f"{text} ({day})"
    return text
