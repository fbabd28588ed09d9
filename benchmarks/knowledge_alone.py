"""How often the knowledge matrix alone, without any training, names the expression of real clips.

    python benchmarks/knowledge_alone.py FOLDER [--save]

FOLDER holds OpenFace's CSVs of labelled clips of several people, as ``audfer knowledge build --openface`` takes them;
or it is an AU table of any extractor's (.parquet) with a labels.csv beside. ``--save`` writes what ``audfer predict``
says about itself with AUs of that tool (audfer/companion/knowledge_alone.json); other tools' rows stay.
"""

import json
import sys

from audfer.action_units.table import table_from_openface_folder
from audfer.companion.predict import ALONE, accuracy_alone
from audfer.files import write_json

if len(sys.argv) < 2:  # as in make bench
    sys.exit(print("knowledge_alone: no folder given, nothing measured"))
table, labels = table_from_openface_folder(sys.argv[1])
people = next(labels[name] for name in ("subject", "actor") if name in labels)
found = accuracy_alone(table.frames, labels["expression"].to_numpy(), people.to_numpy())
found.insert(0, "tool", ", ".join(sorted(set(table.provenance()["tool"]))))
if people.value_counts().min() < 2:
    found = found[found["baseline"] != "person"]  # of one clip nothing is left
print(found.round(3).to_string(index=False))
if "--save" in sys.argv:
    rows = [row for row in json.loads(ALONE.read_text()) if row["tool"] not in set(found["tool"])]
    write_json(ALONE, rows + json.loads(found.round(4).to_json(orient="records")))
