"""Validates the OpenAPI document of a running proxy, and what it answers against the schemas of that document.

usage: openapi.py http://127.0.0.1:PORT NAME_OF_INTERLAY ID_OF_MIGRATION
Prints one line per checked answer; exit 1 with the reason on the first that does not fit.
"""

import json
import sys
import urllib.error
import urllib.request

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate


def get(url, method="GET"):
    request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers.get_content_type(), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get_content_type(), error.read()


def check(document, operation, status, kind, body, what):
    responses = operation["responses"]
    described = responses.get(str(status), responses.get("default"))
    schema = described["content"][kind]["schema"]
    # The schema is looked up inside the document, so that its references resolve.
    whole = {**schema, "components": document["components"]}
    errors = list(Draft202012Validator(whole).iter_errors(json.loads(body)))
    if errors:
        at = "/".join(str(part) for part in errors[0].absolute_path)
        sys.exit(f"{what}: the answer does not fit its schema at {at!r}: {errors[0].message}")
    print(f"{what}: {status} fits")


def main():
    base, interlay, migration = sys.argv[1:]
    _, _, text = get(f"{base}/api/v1/openapi.json")
    document = json.loads(text)
    validate(document)
    print(f"the document is valid OpenAPI {document['openapi']}")
    names = {"{name}": interlay, "{id}": migration, "{slot}": "mirror"}
    checked = 0
    for path, methods in sorted(document["paths"].items()):
        if "get" not in methods or path == "/api/v1/events":
            continue
        concrete = path
        for placeholder, value in names.items():
            concrete = concrete.replace(placeholder, value)
        status, kind, body = get(base + concrete)
        if "json" in kind:
            check(document, methods["get"], status, kind, body, f"GET {concrete}")
            checked += 1
    status, kind, body = get(f"{base}/api/v1/migrations/none-such")
    check(document, document["paths"]["/api/v1/migrations/{id}"]["get"], status, kind, body, "an unknown migration")
    status, kind, body = get(f"{base}/api/v1/migrations/{migration}/advance", "POST")
    check(document, document["paths"]["/api/v1/migrations/{id}/advance"]["post"], status, kind, body, "advance")
    if checked < 10:
        sys.exit(f"only {checked} answers were checked")


main()
