"""Python requests with a CA bundle of its own (the second argument), so that it distrusts the proxy."""
import sys

import requests

try:
    requests.get(sys.argv[1] + "/echo", verify=sys.argv[2], timeout=30).raise_for_status()
except requests.exceptions.SSLError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
print("done")
