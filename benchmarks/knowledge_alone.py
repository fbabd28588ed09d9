"""How often the knowledge matrix alone, without any training, names the expression of real clips.

    python benchmarks/knowledge_alone.py FOLDER [--save]

FOLDER holds OpenFace's CSVs of labelled clips of several people, as ``audfer knowledge build --openface`` takes them.
``--save`` writes what ``audfer predict`` says about itself (audfer/companion/knowledge_alone.json).
"""

import json
import sys

from audfer.action_units.table import table_from_openface_folder
from audfer.companion.predict import ALONE, accuracy_alone
from audfer.files import write_json

table, labels = table_from_openface_folder(sys.argv[1])
people = next(labels[name] for name in ("subject", "actor") if name in labels)
found = accuracy_alone(table.frames, labels["expression"].to_numpy(), people.to_numpy())
print(found.round(3).to_string(index=False))
if "--save" in sys.argv:
    write_json(ALONE, json.loads(found.round(4).to_json(orient="records")))
