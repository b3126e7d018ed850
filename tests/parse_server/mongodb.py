# The stand-in for MongoDB of versions.rs; it must not know what any test is about.
#
#   python3 mongodb.py '{"packages":"/where/they/are/installed","folder":"/for/its/data"}'
#
# Prints one line of JSON, {"port":N}, on stdout once it serves. Ends when its stdin ends.

import json
import sys

arguments = json.loads(sys.argv[1])
sys.path.insert(0, arguments["packages"])

from secantus import SecantusDBServer

with SecantusDBServer(storage_path=arguments["folder"]) as server:
    print(json.dumps({"port": server.address[1]}), flush=True)
    sys.stdin.read()
