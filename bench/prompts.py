"""Prompts of five kinds, eight of each, for benches of whole answers. The texts are our own."""

_ORCHARD = """The orchard behind the old railway station was planted by the station master in 1911.
He had forty apple trees, twelve pear trees and a row of plums along the wall, where the afternoon
sun warmed the bricks. When the railway closed in 1964, nobody looked after the trees, and for
thirty years brambles grew between the rows. In 1995 a group of neighbours asked the town council
for the key to the gate. They cut the brambles back, counted the trees that were still alive, and
found that twenty-six apple trees, four pear trees and all of the plums had survived. Every autumn
since then they have held a market on the platform, where they sell juice, cider and jam. The money
pays for new trees, which are grafted from the old ones, so that the varieties that the station
master chose are not lost. Last year the group planted its hundredth tree. Children from the
primary school come in May to count the bees, and they send their numbers to the university, which
has a record of the orchard's insects that is now eighteen years long."""

_FERRY = """The ferry between the two islands runs every forty minutes from six in the morning
until ten at night. It carries up to eighty passengers and twelve cars. Tickets are sold on board,
and only in cash, because there is no signal in the middle of the strait. In strong wind from the
north the ferry does not sail; a red flag at the harbour office says so, and passengers are told to
call the office before they leave home. Bicycles travel free of charge, but they must be tied to
the rail on the left side. Dogs are allowed on the upper deck. In July and August two ferries run
at the same time, and a trip takes twenty-five minutes instead of thirty, because the boats do not
stop at the lighthouse. The company plans to replace the older boat with an electric one in three
years. The new boat will carry one hundred passengers and no cars, since a bridge for cars is to be
opened in the same year. Residents of the islands pay half of the price if they show their card."""

_KILN = """A kiln for pottery has to be warmed slowly. In the first two hours the temperature must
not rise by more than sixty degrees an hour, because water that is still in the clay turns to steam
and breaks the pots. Between five hundred and six hundred degrees the clay changes for good: it can
no longer be dissolved in water. At this point the potter closes the lid completely. Above nine
hundred degrees the temperature may rise by one hundred and fifty degrees an hour. The glaze melts
at about twelve hundred degrees; the potter watches a small cone of clay through a hole in the
door, and when the tip of the cone bends over, the firing is finished. Then the kiln is switched
off, and it must cool for at least a day. Whoever opens it too early will hear the glaze crack. A
full firing takes eleven hours of heat and twenty hours of cooling, and it costs about as much
electricity as a family uses in three days. Many potters therefore share a kiln and fire it once a
month."""

_LIBRARY = """Our library lends more than books. Since last spring members can also borrow tools,
board games, seeds and musical instruments. A drill may be kept for one week, a game for two weeks
and a violin for three months. Seeds are different: whoever takes a packet in March is asked to
bring back seeds from the grown plants in October. The library began with thirty packets of beans,
and it now has more than four hundred packets of sixty kinds. A member may borrow at most five
things at a time, of which only one may be an instrument. If something is returned late, the fee is
ten cents a day for books and fifty cents a day for everything else. Things that come back broken
are repaired on the first Saturday of the month, when volunteers with soldering irons and glue sit
at the long table in the reading room. Anyone may bring a broken thing from home as well. In the
first year the volunteers repaired two hundred and twelve objects, among them nineteen lamps, a
toaster from 1958 and a wooden leg of a piano stool."""

_TEXTS = (_ORCHARD, _FERRY, _KILN, _LIBRARY)


def _with(text: str, task: str) -> str:
    return f"{task}\n\n{' '.join(text.split())}"


PROSE = (
    "Write a short story about a lighthouse keeper who finds a map.",
    "Describe a walk through a forest on a cold morning in November.",
    "Explain to a child why the moon changes its shape.",
    "Write a letter to a friend who is moving to another city.",
    "Describe how bread is made, from the field to the table.",
    "Write a speech of two minutes for the opening of a small museum.",
    "What makes a good teacher? Write three paragraphs.",
    "Tell the story of the tortoise and the hare in your own words.",
)
CODE = (
    "Write a Python class for a bank account with methods deposit, withdraw and transfer.",
    "Write a Python function that sorts a list with merge sort, with comments.",
    "Write a C program that reads numbers until end of file and prints their mean and maximum.",
    "Write a Python function that checks whether a string is a palindrome, and tests for it.",
    "Write an HTML page with a form that has fields for name, mail address and message.",
    "Write a JavaScript function that groups a list of objects by a key.",
    "Write SQL statements that create tables for authors, books and loans.",
    "Write a Python program that counts the words of a text file and prints the ten most frequent.",
)
TRANSLATION = (
    "Translate into French: The train leaves at nine o'clock, and we must not be late.",
    "Translate into Spanish: My sister has bought a small house near the sea.",
    "Translate into German: The children played in the garden until it was dark.",
    "Translate into Italian: I would like a table for four people by the window, please.",
    "Translate into Portuguese: The library is closed on Mondays and on public holidays.",
    "Translate into French: He forgot his umbrella on the bus, and now it is raining.",
    "Translate into Spanish: We have known each other for more than twenty years.",
    "Translate into German: Please send me the documents before the end of the week.",
)
EDITING = (
    *(_with(text, "Repeat this text, but write all numbers as digits.") for text in _TEXTS),
    *(_with(text, "Summarise this text: copy its three main sentences.") for text in _TEXTS),
)
QUESTIONS = (
    _with(_ORCHARD, "How many trees had survived, and of which kinds? Quote the text."),
    _with(_ORCHARD, "What do the children do, and who gets their numbers? Quote the text."),
    _with(_FERRY, "When does the ferry not sail, and what should passengers do? Quote the text."),
    _with(_FERRY, "How will the new boat differ from the old one? Quote the text."),
    _with(_KILN, "Why has a kiln to be warmed slowly? Quote the text."),
    _with(_KILN, "How does the potter know that the firing is finished? Quote the text."),
    _with(_LIBRARY, "For how long may each thing be kept? Quote the text."),
    _with(_LIBRARY, "What happens on the first Saturday of the month? Quote the text."),
)

KINDS = {
    "prose": PROSE,
    "code": CODE,
    "translation": TRANSLATION,
    "summarise and edit": EDITING,
    "questions on a text": QUESTIONS,
}
