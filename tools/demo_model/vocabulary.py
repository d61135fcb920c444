"""Words from which the generator invents names and values. Values of one list never name two things in one context."""

FIRST_NAMES = """Ada Agnes Alba Alma Amos Anders Anika Ansel Anton Arlo Asha Astrid August Aurel Beatrix Benno Bertil Bianca
Birger Bram Brigid Bruno Callum Carmen Casper Cecily Clara Claude Conrad Cora Cosmo Cyril Dagny Dalia Damian Daphne
Delia Dmitri Dora Edgar Edith Eino Elias Elke Elsa Emeric Emil Enid Ernst Esme Estelle Ewan Fabian Farah Felix Fergus
Fiona Flora Frances Freya Gaspar Gemma Gideon Gilda Giles Greta Gunnar Gwen Hanna Harald Hattie Hector Hedda Helga
Henrik Hester Hilda Hugo Ida Igor Ilse Imogen Inga Ingrid Irene Isak Ivo Jasper Jelena Jonas Josef Judith Juno Karim
Katya Keiko Lars Laszlo Leona Leopold Linnea Lionel Livia Lorenz Lotte Lucian Magda Magnus Malik Marek Margot Marta
Matilda Maud Mei Milos Mina Miriam Nadia Nestor Nils Nina Noor Odette Olaf Olga Orson Oskar Otto Paloma Pascal Petra
Philippa Quentin Rafael Ramona Reiko Renata Roland Rosalind Rufus Sabine Saul Selma Sigrid Silas Sofia Stellan Sunniva
Tamsin Tariq Thea Theodor Tilda Tobias Tove Ulrich Una Ursula Valentin Vera Viggo Viola Walter Wanda Wilma Xenia Yara
Yusuf Zelda Zoran"""

SYLLABLE_ONSETS = """B Br C Cal D Dor F Fen G Gal H Hol J K Kel L Lor M Mar N Nor P Pel R Ros S Sel T Tor V Val W Wil Z
Ash Bel Dun El Gar Hal Is Jor Kas Lin Mel Nev Or Pra Quil Rav Sta Tam Ul Ver Wes Yar"""
SYLLABLE_MIDDLES = "a e i o u an el en er ia in is on or ur ay eva ila oma ani eri ora und ast esk ind olm"
SURNAME_ENDINGS = """by dale ell en er ett ford gate ham hurst ins ko land ler ley man mere mont more nik ova per quist ridge
rin ros sen shaw sky son stad stone strom ton vale wick wood worth zel"""
PLACE_ENDINGS = """a acre berg borough bridge burn by bury cross dale den fell field ford gate ham haven holm ia ingen ley
march mere mond mouth ness ona port ra sand shire stead strand thorpe ton vale via ville wick worth"""
BRAND_ENDINGS = "a ade ax ell eon era ex ia ik in io is ix on or os ova um us yl"

PLACE_PREFIXES = "Upper Lower New Old North South East West Little Great"

OCCUPATIONS = """accountant|apiarist|archivist|astronomer|baker|ballet teacher|beekeeper|bell founder|blacksmith|boat builder|
bookbinder|botanist|brewer|bus driver|cabinet maker|cartographer|ceramicist|cheesemaker|chemist|civil engineer|clockmaker|
coastguard officer|cobbler|court clerk|dairy farmer|dentist|diver|dressmaker|electrician|falconer|ferry pilot|firefighter|
florist|forester|gardener|geologist|glassblower|goldsmith|harbour master|historian|ice-cream maker|interpreter|judge|
kite maker|lace maker|lighthouse keeper|locksmith|machinist|marine biologist|mason|meteorologist|midwife|miller|miner|
mountain guide|music teacher|notary|nurse|optician|orchardist|organ builder|painter|paramedic|pharmacist|photographer|
piano tuner|plumber|postmaster|potter|printer|puppeteer|radio announcer|river pilot|roofer|saddler|sailmaker|
school inspector|sculptor|seismologist|shepherd|signal engineer|stonecutter|surgeon|surveyor|tailor|tax inspector|
translator|tram driver|veterinarian|violin maker|watchmaker|weaver|welder|wine merchant|zookeeper"""
HOBBIES = """playing the cello|collecting stamps|long-distance swimming|painting watercolours|playing chess|breeding pigeons|
restoring old bicycles|growing orchids|playing the accordion|building model ships|birdwatching|mountain climbing|
writing haiku|baking sourdough|ice skating|playing the banjo|juggling|collecting seashells|fencing|cave exploring|
knitting socks|flying kites|playing the harp|carving spoons|astronomy|ballroom dancing|fly fishing|archery|
pressing wildflowers|playing table tennis|singing in a choir|repairing radios|sailing|rowing|collecting maps|gliding|
playing the bagpipes|crossword puzzles|weightlifting|pottery"""
DISHES = """lentil soup|smoked trout|mushroom risotto|cherry dumplings|roast duck|barley stew|pumpkin pie|pickled herring|
onion tart|saffron rice|lamb curry|potato pancakes|fig pudding|spinach lasagne|goose liver pâté|fried plantain|
beetroot salad|plum cake|chicken pie|noodle broth|stuffed peppers|rhubarb crumble|cheese fondue|walnut bread|
grilled sardines|bean casserole|apple strudel|clam chowder|rabbit ragout|honey cake"""
ANIMALS = """parrot|tortoise|greyhound|donkey|ferret|goat|tabby cat|rabbit|pony|goldfish|hedgehog|iguana|terrier|raven|
hamster|sheepdog|peacock|canary|llama|spaniel"""
COLOURS = """crimson|turquoise|olive green|pale yellow|navy blue|burnt orange|ivory|lavender|charcoal grey|emerald green|
rust red|sky blue|copper|jet black|rose pink|mustard yellow|silver|violet|chestnut brown|cream white"""
LANGUAGES = """Basque|Breton|Catalan|Czech|Danish|Estonian|Faroese|Finnish|Frisian|Galician|Georgian|Hungarian|Icelandic|
Japanese|Korean|Latvian|Maltese|Norwegian|Persian|Polish|Portuguese|Romanian|Sami|Slovene|Swahili|Tamil|Turkish|
Ukrainian|Vietnamese|Welsh"""
MATERIALS = """brass|bronze|oak|walnut wood|cast iron|marble|sandstone|porcelain|cedar|pewter|black granite|birch bark|
copper sheet|green glass|ivory|limestone|mahogany|olive wood|red clay|silver|slate|steel|terracotta|whalebone|willow|
alabaster|basalt|ebony|jade|leather"""
OBJECT_KINDS = """clock|lantern|violin|sundial|telescope|compass|tapestry|globe|chalice|music box|barometer|bell|manuscript|
statue|carriage|astrolabe|mosaic|printing press|loom|sextant|vase|harp|sword|atlas|medallion"""
PRODUCTS = """bicycle pumps|ceramic tiles|fishing nets|fountain pens|garden tools|goat's cheese|hand-woven carpets|
herbal tea|ice skates|ink|kitchen knives|leather gloves|linen shirts|marmalade|microscopes|oat biscuits|paper lanterns|
pencils|piano strings|pocket watches|rain coats|reading lamps|rope|rubber boots|sea salt|sleeping bags|snow shovels|
soap|solar panels|spectacle frames|straw hats|surgical instruments|table linen|toy trains|umbrellas|water filters|
weather balloons|wind turbines|wooden toys|wool blankets|electric ferries|hearing aids|crop sensors|chess computers"""
MONTHS = "January February March April May June July August September October November December"
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
PARTS_OF_DAY = """early morning|late afternoon|midday|dusk|shortly after sunrise|midnight|the evening"""
VENUES = """the old grain market|the town hall|the botanical garden|the railway museum|the cathedral square|the fish market|
the riverside park|the public library|the ice rink|the harbour warehouse|the castle courtyard|the university gymnasium|
the horse track|the opera house|the village green|the disused brickworks|the swimming baths|the school hall|
the bishop's orchard|the tram depot|the concert pavilion|the north pier|the city archive|the corn exchange"""
CAUSES = """a broken water main|a faulty signal|a sudden hailstorm|a shortage of coal|a clerical error|a burst dam|
a strike by dock workers|an outbreak of measles|a collapsed roof|a power failure|a forgotten key|a dispute over rent|
heavy fog|a landslide|a swarm of bees|a fallen tree|low water in the canal|a fire in the kitchen|a missing permit|
an unpaid debt|a damaged bridge|a late train|spring floods|a stolen map|a misprinted poster|frozen pipes"""
PRIZES = """a silver cup|a year's supply of honey|a hand-made kite|a brass trumpet|a basket of truffles|a sheepskin coat|
a week at the seaside|a grandfather clock|a painted sledge|a crate of oranges|a golden feather|a new bicycle|
a carved walking stick|a leather saddle|a barrel of cider|a season ticket|a set of encyclopaedias|an engraved plate"""
STYLES = """Baroque|Gothic|Romanesque|Art Nouveau|Brutalist|Neoclassical|Moorish|Palladian|Art Deco|Byzantine|Rococo|
Modernist|Tudor|Renaissance"""
PURPOSES = """storing grain|teaching deaf children|printing newspapers|housing sailors' widows|measuring the tides|
training nurses|repairing locomotives|drying tobacco|studying earthquakes|holding trials|sorting mail|breeding silkworms|
keeping the town's records|treating lung disease|stabling cavalry horses|collecting tolls|brewing beer|testing aircraft"""
GENRES = """detective novel|sea epic|family saga|comic opera|collection of ghost stories|travel diary|science fiction novel|
children's book|verse drama|cookery book|war memoir|political satire|love story|gardening manual|historical romance|
radio play|book of fables"""
THEMES = """a shipwreck on an uninhabited island|the rivalry of two clockmakers|a winter spent in a lighthouse|
the education of a blind musician|a strike in a glass factory|the search for a lost sister|a journey across a salt desert|
the last days of a mining town|a forged will|a friendship between a fox and a monk|the building of a great canal|
a doctor's fight against cholera|a village without clocks|the trial of a poacher|the theft of a church bell|
a girl who talks to rivers|an expedition to the north coast|the secrets of a travelling circus"""
HABITATS = """peat bogs|limestone caves|alpine meadows|salt marshes|dense pine forest|mangrove swamps|gravel beaches|
dry grassland|mountain streams|coral reefs|abandoned quarries|cloud forest|sand dunes|freshwater lakes|coastal cliffs|
oak woodland|volcanic slopes|estuary mud"""
FOODS = """beetle larvae|pine seeds|river snails|small crabs|ripe berries|moss and lichen|flying ants|fish eggs|wild onions|
tree sap|earthworms|young leaves|acorns|water fleas|carrion|grass roots|nectar|freshwater shrimp"""
FEATURES = """a striped tail|a curved orange beak|a ring of white fur around the neck|unusually long ears|webbed hind feet|
a transparent belly|a row of blue spots|a tuft of red feathers|six pairs of gills|golden eyes|a heart-shaped shell|
a double row of teeth|a bright green crest|spiny legs|a black mask across the face|leaf-shaped wings"""
ANIMAL_KINDS = "beetle|finch|frog|newt|vole|moth|heron|crab|lizard|bat|trout|otter|warbler|snail|shrew|duck"
SPORTS = """ice hockey|water polo|handball|rugby|curling|basketball|volleyball|field hockey|football|cricket|rowing|
bandy|lacrosse|badminton"""
NICKNAMES = """the Iron Foxes|the Night Herons|the Millers|the Red Lanterns|the Stone Badgers|the Salt Kings|the Blue Wolves|
the Lamplighters|the River Rats|the Snow Owls|the Copperheads|the Tin Soldiers|the Storm Petrels|the Barrel Makers|
the White Stags|the Thunder Hares"""
TREATMENTS = """chronic insomnia|migraine|hay fever|gout|arthritis|anaemia|asthma|motion sickness|eczema|malaria|
tooth decay|high blood pressure|snow blindness|whooping cough"""
SUBSTANCES = """willow bark|sea lettuce|the roots of a mountain lily|fermented barley|volcanic ash|the venom of a water snake|
crushed oyster shells|pine resin|a soil bacterium|chicory leaves|the shells of shrimps|a blue mould|birch sap|elderflower"""
SIDE_EFFECTS = """dizziness|a dry mouth|mild fever|loss of appetite|vivid dreams|itching|drowsiness|blurred vision|
ringing ears|trembling hands|nausea|a metallic taste"""
THREATS = """the draining of marshes|a fungal disease|the trade in its eggs|noise from shipping|imported rats|road traffic|
the felling of old trees|light from greenhouses|overfishing|mining waste|warmer winters|wild cats|the use of pesticides"""
COUNT_WORDS = "two|three|four|five|six|seven|eight|nine|ten|eleven"
STREETS = "Street|Lane|Road|Alley|Square|Avenue|Crescent|Court|Hill|Terrace"
ORGANISATION_ENDINGS = "Works|Brothers|Trust|Bank|Institute|Group|Mills|Foundry|Shipping|Press|Laboratories|Holdings|Dairy|Instruments"
PUBLISHER_ENDINGS = "Press|Books|House|Editions|Publishers"
MUSEUMS = "Museum|City Collection|Maritime Museum|Treasury|Academy|Cathedral Library|House of Crafts|National Gallery"
STADIUMS = "Park|Arena|Stadium|Field|Road Ground"
LABORATORIES = "University Hospital|Institute of Medicine|Clinic|School of Pharmacy|Medical College"
EVENT_KINDS = """Lantern Fair|Chess Tournament|Regatta|Flower Show|Harvest Run|Kite Festival|Film Week|Poetry Contest|Science Congress|
Boat Race|Baking Contest|Song Festival|Ski Marathon|Design Biennale|Cattle Show|Robot Challenge|Jazz Night|Mountain Race"""
BUILDING_KINDS = "Tower|Hall|Palace|Mill|Chapel|Lighthouse|Observatory|Theatre|Granary|Castle|Abbey|Bath House|Hospital|Courthouse|Library|Viaduct"
CLUB_ENDINGS = "Rovers|United|Athletic|Wanderers|City|Dynamos|Rangers|Albion|Harriers|Union"
TITLE_ADJECTIVES = "Silent|Last|Broken|Hidden|Golden|Winter|Seventh|Distant|Blue|Forgotten|Burning|Second|Quiet|Paper|Glass|Northern"
TITLE_NOUNS = "Orchard|Garden|Daughters|Bells|Road|Lighthouse|Summer|Letters|Harbour|Island|Clock|Bridge|Songs|Mirror|River|Shadow|Voyage|House"
WEATHER = "mild|wet|stormy|unusually dry|bitterly cold|foggy|windy|hot"


def entries(block: str) -> list[str]:
    """The entries of a list, which is |-separated or (names of one word) separated by spaces."""
    parts = block.replace("\n", " ").split("|") if "|" in block else block.split()
    return [part.strip() for part in parts]
