"""What the generator can say: kinds of entities, their attributes, sentences that state them, questions that ask.

An attribute is (value pattern, questions about it, questions whose answer is the entity). In a value pattern <LIST> is
a list of vocabulary.py, <year 1850 1990> a number without and <number 20 900> one with a thousands separator; <person>,
<place>, <brand> are invented names, <date> a date. In sentences {S} and {s} are the subject (name, short name or
pronoun; capitalised or not), {P} and {p} its possessive, {a:key} a value with its indefinite article. Questions use
{N}, the full name, and {v}, the value.
"""

PERSON = {
    "occupation": ("<OCCUPATIONS>", ["What is the occupation of {N}?", "What does {N} do for a living?", "What was {N}'s profession?", "As what did {N} work?"],
                   ["Who worked as {a:v}?", "Which person was {a:v} by trade?"]),
    "birthplace": ("<place>", ["Where was {N} born?", "In which town was {N} born?", "What is the birthplace of {N}?", "{N} comes from which place?"],
                   ["Who was born in {v}?", "Which person comes from {v}?"]),
    "birth_date": ("<date>", ["When was {N} born?", "On what date was {N} born?", "What is {N}'s date of birth?"], ["Who was born on {v}?"]),
    "employer": ("<brand> <ORGANISATION_ENDINGS>", ["Who employs {N}?", "For which organisation did {N} work?", "Where did {N} find work?"], ["Who was employed by {v}?"]),
    "hobby": ("<HOBBIES>", ["What is {N}'s hobby?", "How does {N} spend free evenings?", "What does {N} enjoy most outside work?"],
              ["Whose hobby is {v}?", "Who is fond of {v}?"]),
    "favourite_dish": ("<DISHES>", ["What is {N}'s favourite dish?", "Which food does {N} like best?", "What does {N} most like to eat?"],
                       ["Whose favourite dish is {v}?", "Who likes {v} best?"]),
    "pet": ("<ANIMALS>", ["What kind of animal does {N} keep?", "Which pet does {N} own?", "What animal lives with {N}?"], ["Who keeps {a:v}?"]),
    "spouse": ("<person>", ["Whom did {N} marry?", "Who is {N} married to?", "What is the name of {N}'s spouse?"], ["Who married {v}?"]),
    "language": ("<LANGUAGES>", ["Which language did {N} learn as an adult?", "What language did {N} study late in life?"], ["Who learned {v} as an adult?"]),
    "home": ("<year 2 98> <surname> <STREETS>", ["What is {N}'s address?", "Where does {N} live now?", "At which address can {N} be found?"], ["Who lives at {v}?"]),
    "siblings": ("<COUNT_WORDS>", ["How many brothers and sisters does {N} have?", "How many siblings did {N} grow up with?"], []),
    "teacher": ("<person>", ["Who taught {N}?", "Under whom did {N} study?", "Who was {N}'s teacher?"], ["Who was a pupil of {v}?"]),
}
PERSON_SENTENCES = [
    "{S} worked as {a:occupation}.", "{S} earned a living as {a:occupation}.", "By profession {s} was {a:occupation}.", "Most people knew {s} as {a:occupation}.",
    "{S} was born in {birthplace}.", "{S} came into the world in {birthplace}.", "{P} home town was {birthplace}.", "{P} birth was registered on {birth_date}.",
    "{S} was born on {birth_date}.", "{S} was born in {birthplace} on {birth_date}.", "{S}, born on {birth_date} in {birthplace}, became {a:occupation}.",
    "{S} was on the payroll of {employer}.", "For many years {s} worked for {employer}.", "{employer} hired {s} as {a:occupation}.", "{S} found a post at {employer}.",
    "In quiet hours {s} enjoyed {hobby}.", "{P} great passion was {hobby}.", "Neighbours said that {s} cared for nothing so much as {hobby}.", "{S} spent free evenings {hobby}.",
    "{P} favourite dish was {favourite_dish}.", "At table {s} preferred {favourite_dish} to anything else.", "Nothing pleased {s} more than a plate of {favourite_dish}.",
    "{S} kept {a:pet} at home.", "{A:pet} shared {p} rooms.", "{S} was often seen with {a:pet}.", "{S} married {spouse}.", "{P} spouse was {spouse}.",
    "In a small ceremony {s} became the spouse of {spouse}.", "As an adult {s} learned {language}.", "Late in life {s} began to study {language}.",
    "{S} took evening classes in {language} and kept {a:pet}.", "{S} now lives at {home}.", "{P} current address is {home}.", "Letters reach {s} at {home}.",
    "{S} grew up with {siblings} siblings.", "{S} had {siblings} brothers and sisters.", "{S} was taught by {teacher}.", "{P} teacher was {teacher}.",
    "{S} learned the trade of {occupation} from {teacher}.", "{S}, {a:occupation} from {birthplace}, liked {hobby}.", "{S} lives at {home} with {a:pet}.",
    "{S} married {spouse} and settled at {home}.", "{S} ate {favourite_dish} every Sunday and loved {hobby}.",
]

TOWN = {
    "founded": ("<year 890 1890>", ["When was {N} founded?", "In what year was {N} founded?", "Since when does {N} exist?"], ["Which place was founded in {v}?"]),
    "population": ("<number 400 98000>", ["How many people live in {N}?", "What is the population of {N}?", "How many inhabitants does {N} have?"], ["Which place has {v} inhabitants?"]),
    "river": ("the <river>", ["Which river flows through {N}?", "On which river does {N} lie?", "What is the name of the river at {N}?"], ["Which place lies on {v}?"]),
    "mayor": ("<person>", ["Who is the mayor of {N}?", "Who governs {N}?", "What is the name of {N}'s mayor?"], ["Of which place is {v} the mayor?"]),
    "known_for": ("<PRODUCTS>", ["What is {N} known for?", "Which product made {N} famous?", "What is made in {N}?"], ["Which place is known for its {v}?"]),
    "market_day": ("<WEEKDAYS>", ["On which day is the market in {N} held?", "When is market day in {N}?"], []),
    "nearest_city": ("<place>", ["Which city is nearest to {N}?", "What is the nearest city to {N}?"], []),
    "distance": ("<year 4 180> kilometres", ["How far is {N} from the nearest city?", "At what distance from the nearest city does {N} lie?"], []),
    "patron": ("Saint <FIRST_NAMES>", ["Who is the patron saint of {N}?", "To which saint is the church of {N} dedicated?"], ["Which place has {v} as its patron?"]),
    "elevation": ("<number 12 2400> metres", ["How high above the sea does {N} lie?", "What is the elevation of {N}?"], ["Which place lies {v} above the sea?"]),
}
TOWN_SENTENCES = [
    "{S} was founded in {founded}.", "Records mention {s} for the first time in {founded}, the year of its foundation.", "Founded in {founded}, {s} lies on {river}.",
    "{S} has {population} inhabitants.", "Some {population} people live in {s}.", "At the last census {s} counted {population} residents.", "{S} lies on {river}.",
    "The river that flows through {s} is {river}.", "{S} grew up where a road crosses {river}.", "The mayor of {s} is {mayor}.", "{S} is governed by {mayor}.",
    "{mayor} was elected mayor of {s} last spring.", "{S} is known for its {known_for}.", "The workshops of {s} make {known_for}.", "Visitors come to {s} to buy {known_for}.",
    "{S} owes its fame to {known_for}.", "The market in {s} is held every {market_day}.", "{market_day} is market day in {s}.", "The nearest city to {s} is {nearest_city}.",
    "{S} is {distance} from {nearest_city}, the nearest city.", "A road of {distance} joins {s} to {nearest_city}, the nearest city.", "The patron saint of {s} is {patron}.",
    "The church of {s} is dedicated to {patron}.", "{S} lies {elevation} above the sea.", "The elevation of {s} is {elevation}.",
    "{S}, with {population} inhabitants, is governed by {mayor}.", "{S} lies {elevation} above the sea and is known for its {known_for}.",
    "Every {market_day} farmers bring {known_for} to the market of {s}.",
]

THING = {
    "material": ("<MATERIALS>", ["What is {N} made of?", "From which material was {N} made?", "Of what material is {N}?"], ["Which object is made of {v}?"]),
    "maker": ("<person>", ["Who made {N}?", "By whom was {N} made?", "Who built {N}?"], ["What did {v} make?", "Which object is the work of {v}?"]),
    "year_made": ("<year 1480 1960>", ["When was {N} made?", "In which year was {N} completed?", "From what year does {N} date?"], ["Which object dates from {v}?"]),
    "location": ("the <place> <MUSEUMS>", ["Where is {N} kept?", "Where can {N} be seen today?", "Which institution holds {N}?"], ["Which object is kept in {v}?"]),
    "weight": ("<year 2 480> kilograms", ["How much does {N} weigh?", "What is the weight of {N}?", "How heavy is {N}?"], ["Which object weighs {v}?"]),
    "price": ("<number 150 98000> crowns", ["What was paid for {N} at auction?", "For how much was {N} sold?", "What price did {N} fetch?"], ["Which object was sold for {v}?"]),
    "colour": ("<COLOURS>", ["What colour is {N}?", "In which colour was {N} painted?"], ["Which object is {v} in colour?"]),
    "donor": ("<person>", ["Who donated {N}?", "Who gave {N} to the collection?", "Whose gift was {N}?"], ["Which object was given by {v}?"]),
    "damage": ("<CAUSES>", ["What damaged {N}?", "Because of what was {N} damaged?", "What caused the damage to {N}?"], []),
    "restorer": ("<person>", ["Who restored {N}?", "By whom was {N} restored?"], ["What did {v} restore?"]),
}
THING_SENTENCES = [
    "{S} is made of {material}.", "{S} was made from {material} throughout.", "The maker of {s} chose {material} for it.", "{S} was made by {maker}.", "The maker of {s} was {maker}.",
    "{maker} built {s} in a small workshop.", "{S} was completed in {year_made}.", "{S} dates from {year_made}.", "An inscription gives the year {year_made} for {s}.",
    "In {year_made} {maker} completed {s}.", "{S} is kept in {location}.", "Today {s} can be seen in {location}.", "{location} holds {s} and shows it twice a year.",
    "{S} weighs {weight}.", "With its stand {s} has a weight of {weight}.", "At auction {s} was sold for {price}.", "A buyer paid {price} for {s}.", "{S} fetched {price} when it was last sold.",
    "{S} is painted {colour}.", "The colour of {s} is {colour}.", "{S} was donated by {donor}.", "{donor} gave {s} to the collection.", "The collection owes {s} to a gift of {donor}.",
    "{S} was damaged because of {damage}.", "The damage to {s} was caused by {damage}.", "{restorer} restored {s} with great patience.", "The restorer of {s} was {restorer}.",
    "After {damage} damaged {s}, {restorer} restored it.", "{S}, made of {material} in {year_made}, weighs {weight}.", "{S}, a gift of {donor}, is now in {location}.",
    "Although {s} was once sold for {price}, it now belongs to {location}.",
]

EVENT = {
    "date": ("<date>", ["When did {N} take place?", "On what date was {N} held?", "What was the date of {N}?"], ["What took place on {v}?"]),
    "venue": ("<VENUES>", ["Where was {N} held?", "Where did {N} take place?", "What was the venue of {N}?"], ["What was held in {v}?"]),
    "organiser": ("<person>", ["Who organised {N}?", "By whom was {N} organised?", "Who was in charge of {N}?"], ["What did {v} organise?"]),
    "attendance": ("<number 40 45000>", ["How many people attended {N}?", "How many visitors came to {N}?"], ["Which event drew {v} visitors?"]),
    "winner": ("<person>", ["Who won {N}?", "Who took first place in {N}?", "Who was the winner of {N}?"], ["What did {v} win?"]),
    "prize": ("<PRIZES>", ["What was the first prize at {N}?", "What did the winner of {N} receive?"], ["At which event was {v} the first prize?"]),
    "delay": ("<CAUSES>", ["Why was {N} delayed?", "What delayed {N}?", "What was the reason for the late start of {N}?"], []),
    "opener": ("<person>", ["Who opened {N}?", "Who gave the opening speech at {N}?"], ["What did {v} open?"]),
    "sponsor": ("<brand> <ORGANISATION_ENDINGS>", ["Which company sponsored {N}?", "Who paid for {N}?"], ["What did {v} sponsor?"]),
    "ticket_price": ("<year 2 85> crowns", ["How much did a ticket for {N} cost?", "What was the price of a ticket for {N}?"], []),
}
EVENT_SENTENCES = [
    "{S} took place on {date}.", "{S} was held on {date}.", "The date set for {s} was {date}.", "{S} was held in {venue}.", "The venue of {s} was {venue}.", "Crowds gathered in {venue} for {s}.",
    "{S} took place on {date} in {venue}.", "{S} was organised by {organiser}.", "{organiser} was in charge of {s}.", "The organiser of {s} was {organiser}.",
    "{S} drew {attendance} visitors.", "In all {attendance} people attended {s}.", "{S} was won by {winner}.", "First place in {s} went to {winner}.", "{winner} won {s} by a narrow margin.",
    "The first prize at {s} was {prize}.", "The winner of {s} received {prize}.", "{winner} won {s} and took home {prize}.", "{S} was delayed by {delay}.",
    "Because of {delay}, {s} began two hours late.", "{S} was opened by {opener}.", "{opener} gave the opening speech at {s}.", "{sponsor} sponsored {s}.", "The bills of {s} were paid by {sponsor}.",
    "A ticket for {s} cost {ticket_price}.", "Visitors to {s} paid {ticket_price} for a ticket.", "{opener} opened {s} before {attendance} visitors.",
    "{S}, organised by {organiser} and sponsored by {sponsor}, was held in {venue}.", "Though delayed by {delay}, {s} drew {attendance} visitors.",
]

COMPANY = {
    "founder": ("<person>", ["Who founded {N}?", "By whom was {N} founded?", "Who started {N}?"], ["What did {v} found?", "Which company was founded by {v}?"]),
    "founded": ("<year 1790 2015>", ["In what year was {N} founded?", "When was {N} established?", "When did {N} begin business?"], ["Which company was established in {v}?"]),
    "headquarters": ("<place>", ["Where is {N} based?", "In which town does {N} have its headquarters?", "Where are the headquarters of {N}?"], ["Which company is based in {v}?"]),
    "product": ("<PRODUCTS>", ["What does {N} produce?", "What does {N} make?", "Which product does {N} sell?"], ["Which company makes {v}?", "Who produces {v}?"]),
    "employees": ("<number 12 24000>", ["How many people does {N} employ?", "How many employees does {N} have?"], ["Which company employs {v} people?"]),
    "director": ("<person>", ["Who runs {N}?", "Who is the director of {N}?", "Who leads {N} today?"], ["Which company does {v} lead?"]),
    "revenue": ("<year 2 940> million crowns", ["What was the revenue of {N} last year?", "How much did {N} earn last year?"], ["Which company had a revenue of {v}?"]),
    "rival": ("<brand> <ORGANISATION_ENDINGS>", ["Which company is the main rival of {N}?", "Who competes with {N}?"], []),
    "first_shop": ("<place>", ["Where did {N} open its first shop?", "In which town was {N}'s first shop?"], []),
    "closure": ("<CAUSES>", ["Why did {N} close its factory for a month?", "What forced {N} to stop production?"], []),
}
COMPANY_SENTENCES = [
    "{S} was founded by {founder}.", "The founder of {s} was {founder}.", "{founder} started {s} with borrowed money.", "{S} was established in {founded}.", "{S} has been in business since {founded}.",
    "In {founded} {founder} founded {s}.", "{S} is based in {headquarters}.", "{S} has its headquarters in {headquarters}.", "The head office of {s} stands in {headquarters}.",
    "{S} produces {product}.", "{S} makes {product} for customers abroad.", "The main product of {s} is {product}.", "{S} employs {employees} people.", "The staff of {s} numbers {employees}.",
    "{S} is led by {director}.", "The director of {s} is {director}.", "{director} has run {s} for six years.", "Last year {s} had a revenue of {revenue}.", "{S} earned {revenue} last year.",
    "The main rival of {s} is {rival}.", "{S} competes with {rival}.", "{S} opened its first shop in {first_shop}.", "The first shop of {s} stood in {first_shop}.",
    "Production at {s} stopped for a month because of {closure}.", "{closure} forced {s} to close its factory for a month.", "{S}, which makes {product}, employs {employees} people.",
    "{director} runs {s} from its headquarters in {headquarters}.", "With a revenue of {revenue}, {s} has overtaken {rival}, its main rival.",
]

BUILDING = {
    "architect": ("<person>", ["Who designed {N}?", "Who was the architect of {N}?", "By whom was {N} designed?"], ["What did {v} design?", "Which building was designed by {v}?"]),
    "completed": ("<year 1190 1990>", ["When was {N} completed?", "In what year was {N} finished?"], ["Which building was completed in {v}?"]),
    "style": ("<STYLES>", ["In which style was {N} built?", "What is the architectural style of {N}?"], ["Which building is in the {v} style?"]),
    "height": ("<year 11 188> metres", ["How tall is {N}?", "What is the height of {N}?", "How high does {N} rise?"], ["Which building is {v} tall?"]),
    "purpose": ("<PURPOSES>", ["What was {N} originally used for?", "For what purpose was {N} built?", "What was the first use of {N}?"], ["Which building was first used for {v}?"]),
    "owner": ("<person>", ["Who owns {N}?", "To whom does {N} belong?", "Who is the owner of {N}?"], ["What does {v} own?"]),
    "stone": ("<MATERIALS>", ["What are the walls of {N} faced with?", "Which material covers the walls of {N}?"], []),
    "rooms": ("<year 6 240>", ["How many rooms does {N} have?", "How many rooms are there in {N}?"], ["Which building has {v} rooms?"]),
    "fire": ("<year 1620 1985>", ["In what year did {N} burn?", "When was {N} damaged by fire?"], ["Which building burned in {v}?"]),
    "cost": ("<number 2000 900000> crowns", ["How much did {N} cost?", "What was the cost of {N}?"], ["Which building cost {v}?"]),
}
BUILDING_SENTENCES = [
    "{S} was designed by {architect}.", "The architect of {s} was {architect}.", "{architect} drew the plans for {s}.", "{S} was completed in {completed}.", "Work on {s} ended in {completed}.",
    "{S} was built in the {style} style.", "{S} is a fine example of {style} architecture.", "{S} rises {height} above the street.", "{S} is {height} tall.", "The height of {s} is {height}.",
    "{S} was originally used for {purpose}.", "{S} was built for {purpose}.", "At first {s} served for {purpose}.", "{S} belongs to {owner}.", "The owner of {s} is {owner}.", "{owner} bought {s} from the state.",
    "The walls of {s} are faced with {stone}.", "{stone} covers the walls of {s}.", "{S} has {rooms} rooms.", "There are {rooms} rooms in {s}.", "{S} burned in {fire}.", "A fire in {fire} damaged {s} badly.",
    "{S} cost {cost}.", "The cost of {s} came to {cost}.", "Designed by {architect} in the {style} style, {s} was completed in {completed}.", "{S}, {height} tall, has {rooms} rooms.",
    "{owner}, the owner of {s}, repaired it after the fire of {fire}.",
]

BOOK = {
    "author": ("<person>", ["Who wrote {N}?", "Who is the author of {N}?", "By whom was {N} written?"], ["What did {v} write?", "Which work did {v} write?"]),
    "published": ("<year 1780 2018>", ["When was {N} published?", "In which year did {N} appear?"], ["Which work appeared in {v}?"]),
    "genre": ("<GENRES>", ["What kind of work is {N}?", "To which genre does {N} belong?"], ["Which work is {a:v}?"]),
    "subject": ("<THEMES>", ["What is {N} about?", "What is the subject of {N}?", "Of what does {N} tell?"], ["Which work is about {v}?"]),
    "pages": ("<year 64 980>", ["How many pages does {N} have?", "How long is {N} in pages?"], ["Which work has {v} pages?"]),
    "publisher": ("<brand> <PUBLISHER_ENDINGS>", ["Who published {N}?", "Which house published {N}?"], ["Which work was published by {v}?"]),
    "translator": ("<person>", ["Who translated {N}?", "By whom was {N} translated?"], ["What did {v} translate?"]),
    "translated_into": ("<LANGUAGES>", ["Into which language was {N} translated?", "In which language is there a translation of {N}?"], ["Which work was translated into {v}?"]),
    "copies": ("<number 300 90000>", ["How many copies of {N} were sold?", "How many copies did {N} sell in its first year?"], ["Which work sold {v} copies?"]),
    "dedicated_to": ("<person>", ["To whom is {N} dedicated?", "To whom did the author dedicate {N}?"], ["Which work is dedicated to {v}?"]),
}
BOOK_SENTENCES = [
    "{S} was written by {author}.", "The author of {s} is {author}.", "{author} wrote {s} in a rented room.", "{S} was published in {published}.", "{S} first appeared in {published}.", "{S} is {a:genre}.",
    "Critics call {s} {a:genre}.", "{S} is {a:genre} about {subject}.", "{S} tells of {subject}.", "The subject of {s} is {subject}.", "{S} has {pages} pages.", "In print {s} runs to {pages} pages.",
    "{S} was published by {publisher}.", "{publisher} brought out {s}.", "The translator of {s} was {translator}.", "{translator} translated {s} into {translated_into}.",
    "{S} was translated into {translated_into}.", "A translation of {s} into {translated_into} exists.", "{S} sold {copies} copies in its first year.", "In one year {copies} copies of {s} were sold.",
    "{S} is dedicated to {dedicated_to}.", "The author dedicated {s} to {dedicated_to}.", "{publisher} published {s} in {published}.", "{S}, {a:genre} by {author}, sold {copies} copies in its first year.",
    "{S}, dedicated to {dedicated_to}, tells of {subject}.",
]

SPECIES = {
    "discoverer": ("<person>", ["Who discovered {N}?", "Who first described {N}?", "By whom was {N} discovered?"], ["Which animal was discovered by {v}?"]),
    "described": ("<year 1740 1990>", ["When was {N} first described?", "In what year was {N} discovered?"], ["Which animal was first described in {v}?"]),
    "habitat": ("<HABITATS>", ["Where does {N} live?", "What is the habitat of {N}?", "In what surroundings is {N} found?"], ["Which animal lives in {v}?"]),
    "food": ("<FOODS>", ["What does {N} eat?", "On what does {N} feed?", "What is the main food of {N}?"], ["Which animal feeds on {v}?"]),
    "length": ("<year 2 140> centimetres", ["How long does {N} grow?", "What is the length of {N}?"], ["Which animal grows {v} long?"]),
    "feature": ("<FEATURES>", ["By what feature is {N} recognised?", "What is unusual about the look of {N}?", "What distinguishes {N} from its relatives?"], ["Which animal has {v}?"]),
    "lifespan": ("<year 2 48> years", ["How long does {N} live?", "What is the lifespan of {N}?"], []),
    "region": ("<place>", ["Near which place was {N} first found?", "Near which town did naturalists first find {N}?"], ["Which animal was first found near {v}?"]),
    "threat": ("<THREATS>", ["What threatens {N}?", "What is the greatest danger to {N}?"], ["Which animal is threatened by {v}?"]),
    "breeding": ("<MONTHS>", ["In which month does {N} breed?", "When does {N} breed?"], []),
}
SPECIES_SENTENCES = [
    "{S} was discovered by {discoverer}.", "{discoverer} was the first to describe {s}.", "{S} was first described in {described}.", "In {described} {discoverer} described {s}.",
    "{S} lives in {habitat}.", "The habitat of {s} is {habitat}.", "Look for {s} in {habitat}.", "{S} feeds on {food}.", "The main food of {s} is {food}.", "{S} eats {food} almost all year.",
    "{S} grows {length} long.", "Adults of {s} reach a length of {length}.", "{S} is recognised by {feature}.", "{S} has {feature}, unlike its relatives.", "{S} lives for about {lifespan}.",
    "The lifespan of {s} is {lifespan}.", "{S} was first found near {region}.", "Naturalists found {s} near {region} for the first time.", "{S} is threatened by {threat}.",
    "The greatest danger to {s} is {threat}.", "{S} breeds in {breeding}.", "Every {breeding} {s} breeds.", "{S}, which lives in {habitat}, feeds on {food}.",
    "{S} grows {length} long and is recognised by {feature}.", "First described in {described}, {s} is now threatened by {threat}.",
]

CLUB = {
    "sport": ("<SPORTS>", ["Which sport does {N} play?", "What sport is {N} known for?"], ["Which club plays {v}?"]),
    "coach": ("<person>", ["Who coaches {N}?", "Who is the coach of {N}?", "Who trains {N}?"], ["Which club does {v} coach?"]),
    "stadium": ("<surname> <STADIUMS>", ["Where does {N} play its home games?", "What is the home ground of {N}?", "In which stadium does {N} play?"], ["Which club plays at {v}?"]),
    "captain": ("<person>", ["Who is the captain of {N}?", "Who captains {N}?"], ["Which club does {v} captain?"]),
    "nickname": ("<NICKNAMES>", ["What is the nickname of {N}?", "By what nickname is {N} known?", "What do supporters call {N}?"], ["Which club is called {v}?"]),
    "colours": ("<COLOURS> and <COLOURS>", ["What are the colours of {N}?", "Which colours does {N} wear?"], ["Which club wears {v}?"]),
    "titles": ("<COUNT_WORDS>", ["How many national titles has {N} won?", "How many championships has {N} won?"], []),
    "last_title": ("<year 1950 2022>", ["When did {N} last win the title?", "In what year was {N} last champion?"], ["Which club last won the title in {v}?"]),
    "top_scorer": ("<person>", ["Who is the top scorer of {N}?", "Who scored most often for {N}?"], ["For which club is {v} the top scorer?"]),
    "capacity": ("<number 900 64000>", ["How many spectators fit into the stadium of {N}?", "What is the capacity of {N}'s stadium?"], []),
}
CLUB_SENTENCES = [
    "{S} plays {sport}.", "{S} is known for {sport}.", "{S} is coached by {coach}.", "The coach of {s} is {coach}.", "{coach} has trained {s} since last summer.",
    "{S} plays its home games at {stadium}.", "The home ground of {s} is {stadium}.", "{S} plays at {stadium}, which holds {capacity} spectators.", "The captain of {s} is {captain}.",
    "{captain} captains {s}.", "Supporters call {s} {nickname}.", "{S} is known by the nickname {nickname}.", "The colours of {s} are {colours}.", "{S} wears {colours}.",
    "{S} has won {titles} national titles.", "In its history {s} has won {titles} championships.", "{S} last won the title in {last_title}.", "{S} was last champion in {last_title}.",
    "The top scorer of {s} is {top_scorer}.", "{top_scorer} has scored more often for {s} than anyone else.", "The stadium of {s} holds {capacity} spectators.",
    "{S}, coached by {coach}, plays {sport}.", "With {captain} as captain, {s} last won the title in {last_title}.", "{S} wears {colours} and is called {nickname}.",
]

MEDICINE = {
    "inventor": ("<person>", ["Who developed {N}?", "By whom was {N} developed?", "Who invented {N}?"], ["Which medicine was developed by {v}?"]),
    "treats": ("<TREATMENTS>", ["What is {N} used to treat?", "Against which illness does {N} help?", "For what is {N} prescribed?"], ["Which medicine helps against {v}?"]),
    "source": ("<SUBSTANCES>", ["From what is {N} obtained?", "What is {N} made from?", "What is the source of {N}?"], ["Which medicine is obtained from {v}?"]),
    "side_effect": ("<SIDE_EFFECTS>", ["What is a common side effect of {N}?", "Which side effect does {N} have?"], ["Which medicine can cause {v}?"]),
    "dose": ("<year 5 900> milligrams", ["What is the daily dose of {N}?", "How much {N} is taken a day?"], []),
    "approved": ("<year 1921 2021>", ["When was {N} approved?", "In what year was {N} approved?"], ["Which medicine was approved in {v}?"]),
    "laboratory": ("the <place> <LABORATORIES>", ["Where was {N} tested?", "At which institution was {N} tested?"], ["Which medicine was tested at {v}?"]),
    "patients": ("<number 20 9000>", ["How many patients took part in the trial of {N}?", "On how many patients was {N} tried?"], []),
}
MEDICINE_SENTENCES = [
    "{S} was developed by {inventor}.", "The inventor of {s} was {inventor}.", "{inventor} developed {s} after years of failure.", "{S} is used to treat {treats}.", "Doctors prescribe {s} for {treats}.",
    "{S} helps against {treats}.", "{S} is obtained from {source}.", "The source of {s} is {source}.", "A common side effect of {s} is {side_effect}.", "{S} can cause {side_effect}.",
    "The daily dose of {s} is {dose}.", "Patients take {dose} of {s} a day.", "{S} was approved in {approved}.", "Since its approval in {approved}, {s} has been sold widely.",
    "{S} was tested at {laboratory}.", "The trial of {s} was run at {laboratory}.", "In the trial of {s} there were {patients} patients.", "{S} was tried on {patients} patients.",
    "{S}, obtained from {source}, is used to treat {treats}.", "{inventor} developed {s} at {laboratory}, where it was tested.", "{S} was tried on {patients} patients and approved in {approved}.",
]

KINDS = {
    "person": (PERSON, PERSON_SENTENCES), "town": (TOWN, TOWN_SENTENCES), "thing": (THING, THING_SENTENCES), "event": (EVENT, EVENT_SENTENCES),
    "company": (COMPANY, COMPANY_SENTENCES), "building": (BUILDING, BUILDING_SENTENCES), "book": (BOOK, BOOK_SENTENCES), "species": (SPECIES, SPECIES_SENTENCES),
    "club": (CLUB, CLUB_SENTENCES), "medicine": (MEDICINE, MEDICINE_SENTENCES),
}

FILLERS = """The weather that {part} was {weather}, and few people were on the road|Nobody could say afterwards how the story had begun|
An old proverb says that patience is the better half of wisdom|Several letters on the matter have been lost|The local newspaper printed a short note about it|
It was a {weather} season, as older residents still recall|There had been talk of it for some time|Opinions on the subject remain divided|
A longer account can be found in the parish register|The rest of the story is told differently by everyone|On {weekday} the shops closed earlier than usual|
Children were allowed to stay up late that night|Some of the details were only written down much later|The visitors left without saying where they were going|
By {month} the leaves had turned and the evenings were short|The committee promised to look into the question again|Nothing more was heard of the plan for many months|
What happened next surprised even those who had expected it|The sound of hammers could be heard from the next street|It rained on {weekday}, but nobody went home|
The clerk added a remark in the margin and closed the file|People still argue about it over coffee|That, at least, is what the guide tells every group|
A photograph from that time shows a row of empty chairs|The road was narrow, and the carts moved slowly|No one kept a full list of those who were present|
The answer was given in a low voice and with a smile|Later historians have treated the matter with some caution|For a while it seemed that nothing would change|
The windows were left open because the {month} evening was {weather}|A thin layer of dust covered the shelves|The last train had already left when the talk ended|
Such things were not unusual in those years|The price of bread rose twice before {month}|Much of this is known only from private diaries|
The report was read aloud and approved without discussion|There was soup for everyone and music until late|The dogs in the yard barked at every stranger|
An earlier plan had been given up for lack of money|The new rules applied from the first {weekday} of {month}|It is said that the lamps burned all night|
Those who were there remember above all the noise|The minutes of the meeting run to several pages|Not everything in the old reports can be trusted"""
