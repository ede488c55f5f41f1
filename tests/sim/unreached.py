"""Lists the functions and closures of the core that no seed reached, from what `llvm-cov export` says.

What is generic is there once for each use: it counts as reached if any of them is.
"""

import json
import sys

reached = {}
for data in json.load(open(sys.argv[1], encoding="utf-8"))["data"]:
    for function in data["functions"]:
        path = function["filenames"][0]
        if "protocol/src/" in path:
            place = (path, function["regions"][0][0])
            reached[place] = reached.get(place, 0) + function["count"]

never = sorted(place for place, count in reached.items() if count == 0)
print(f"functions and closures: {len(reached)}, never reached: {len(never)}")
for path, line in never:
    text = open(path, encoding="utf-8").readlines()[line - 1].strip()
    print(f"  {path.split('protocol/src/')[1]}:{line}  {text}")
