"""The description of the interface: it is OpenAPI, every call that there is is in it, and every example works.

Schemas are checked by python3-jsonschema; what is OpenAPI's own is looked at here: references lead somewhere, path parameters are declared,
operations have names of their own. Each example of a request is sent, in an order in which each finds what it needs, and each answer,
those of the examples too, must fit its schema.
"""
import os
import re
from urllib.parse import quote

from jsonschema import Draft202012Validator

from support import expect, main

ORDER = ["createCollection", "listCollections", "upsert", "describeCollection", "search", "searchBatch", "scroll", "count", "facet",
         "getVector", "changePayload", "stats", "checkpoint", "deleteVectors", "deleteVector", "alterCollection", "livez", "readyz", "health", "metrics", "openapi", "page",
         "dropCollection"]
METHODS = ("get", "put", "post", "patch", "delete")
ROUTES = os.path.join(os.path.dirname(__file__), "../../server/gateway/route.c")
document = {}


def resolve(node):
    while isinstance(node, dict) and "$ref" in node:
        target = document
        assert node["$ref"].startswith("#/"), node
        for step in node["$ref"][2:].split("/"):
            target = target[step]
        node = target
    return node


def schema(node):
    """A schema of the document, with the components that it refers to."""
    return {**node, "components": document["components"]}


def check(value, node, what):
    errors = sorted(Draft202012Validator(schema(node)).iter_errors(value), key=str)
    assert not errors, f"{what}: {errors[0].message} at {list(errors[0].absolute_path)} in {value}"


def operations():
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method], [resolve(p) for p in item.get("parameters", []) + item[method].get("parameters", [])]


def everything(node):
    yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from everything(child)


def the_document_is_valid(m):
    document.update(expect(m.get("/openapi.json"), 200).json)
    assert document["openapi"].startswith("3.1") and document["info"]["title"] and document["info"]["version"]
    for node in everything(document):
        if isinstance(node, dict) and "$ref" in node:
            assert resolve(node) is not None
        if isinstance(node, dict) and isinstance(node.get("schema"), dict):
            Draft202012Validator.check_schema(node["schema"])
    for name, node in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(node)
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    names = [operation["operationId"] for _, _, operation, _ in operations()]
    assert len(names) == len(set(names)) and sorted(names) == sorted(ORDER), set(names) ^ set(ORDER)
    for path, _, operation, parameters in operations():
        assert set(re.findall(r"\{(\w+)\}", path)) == {p["name"] for p in parameters if p["in"] == "path"}, path
        assert all(p["in"] != "path" or p["required"] for p in parameters)
        assert operation["summary"] and "200" in operation["responses"] or "201" in operation["responses"]
        for code, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", code) and resolve(response)["description"], (path, code)


def every_call_is_in_it_and_nothing_else(m):
    with open(ROUTES, encoding="utf-8") as f:
        routes = re.findall(r'\{ KITHI_REST_\w+, KITHI_HTTP_(\w+), "([^"]+)"', f.read())
    assert len(routes) == len(ORDER), len(routes)
    there = {(method.lower(), path.replace("{c}", "{collection}")) for method, path in routes}
    assert there == {(method, path) for path, method, _, _ in operations()}, there ^ {(method, path) for path, method, _, _ in operations()}
    assert document["info"]["version"] == m.get("/health").json["version"]


def every_example_works(m):
    by_name = {operation["operationId"]: (path, method, operation, parameters) for path, method, operation, parameters in operations()}
    sent = 0
    for name in ORDER:
        path, method, operation, parameters = by_name[name]
        url = path
        for p in parameters:
            if p["in"] == "path":
                url = url.replace("{%s}" % p["name"], quote(p["example"], safe=""))
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        examples = {key: e["value"] for key, e in content.get("examples", {}).items()} if content else {"": None}
        assert examples, f"{name} has a body and no example"
        for key, body in examples.items():
            if body is not None:
                check(body, content["schema"], f"request {name} {key}")
            answer = m.ask(method.upper(), url, body)
            assert answer.status in (200, 201) and str(answer.status) in operation["responses"], (name, key, answer)
            sent += 1
            given = resolve(operation["responses"][str(answer.status)])["content"]
            media = answer.headers["Content-Type"].split(";")[0]
            assert media in given, (name, media)
            if media == "application/json":
                check(answer.json, given[media]["schema"], f"answer {name} {key}")
                if "example" in given[media]:
                    check(given[media]["example"], given[media]["schema"], f"example of the answer {name}")
    print(f"        {sent} examples of {len(ORDER)} operations")


def refusals_fit_their_schema_and_are_declared(m):
    error = document["components"]["schemas"]["Error"]
    by_name = {operation["operationId"]: operation for _, _, operation, _ in operations()}
    for name, answer in (("search", m.post("/collections/none/search", {"vector": [1]})), ("search", m.post("/collections/none/search", {})),
                         ("search", m.post("/collections/none/search", b"{")), ("dropCollection", m.ask("DELETE", "/collections/none")),
                         ("upsert", m.post("/collections/none/upsert", {"points": []})), ("getVector", m.get("/collections/none/vectors/a")),
                         ("search", m.post("/collections/none/search", b"{}", headers={"Content-Type": "a/b"})), ("health", m.get("/health?a=b"))):
        assert answer.status >= 400 and str(answer.status) in by_name[name]["responses"], (name, answer)
        check(answer.json, error, name)


def set_up(m):
    m.start_kithd()
    m.start_gateway()
    m.writable()


main([the_document_is_valid, every_call_is_in_it_and_nothing_else, every_example_works, refusals_fit_their_schema_and_are_declared], set_up)
