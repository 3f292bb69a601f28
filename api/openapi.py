"""The OpenAPI 3.1 document: Quart-Schema's, mended in four places.

* Quart-Schema keeps only the first of the components that msgspec makes for a structure, so the
  references to nested ones would lead nowhere.
* It documents errors as ``application/json``; ours are ``application/problem+json``.
* It says of no part of a query that it is required.
* It builds the document anew for each request; it is built once here.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
import msgspec.inspect
from quart import Quart
from quart_schema import HttpSecurityScheme, Info, OpenAPIProvider, QuartSchema, security_scheme
from quart_schema.validation import DataSource
from werkzeug.routing import BaseConverter, Rule

from api import problems as problem_kinds
from api import schemas

DOCUMENT = "trunkline.openapi"
"""The extension that holds the encoded document."""

REF_TEMPLATE = "#/components/schemas/{name}"
BEARER = "bearer"

_PROBLEMS = "_trunkline_problems"
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])

Json = dict[str, Any]


def problems(*statuses: int) -> Callable[[_Endpoint], _Endpoint]:
    """Document the errors that an endpoint answers with."""

    def decorate(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _PROBLEMS, statuses)
        return endpoint

    return decorate


def public(endpoint: _Endpoint) -> _Endpoint:
    """Document that an endpoint needs no credential (`api.gate` decides; this only tells)."""
    return security_scheme([])(endpoint)


def describe(app: Quart, version: str) -> None:
    """Build the document of an application whose routes are complete."""
    extension = QuartSchema(
        app,
        openapi_path=None,
        info=Info(
            title="Trunkline",
            version=version,
            description="Sessions in sandboxes, and tickets to attach to their streams.",
        ),
        security_schemes={BEARER: HttpSecurityScheme(scheme="bearer")},
        security=[{BEARER: []}],
        conversion_preference="msgspec",
        openapi_provider_class=Provider,
    )
    app.extensions[DOCUMENT] = msgspec.json.encode(extension.openapi_provider.schema())


class Provider(OpenAPIProvider):
    """Builds the document from the routes."""

    def build_paths(self, rule: Rule) -> tuple[Json, Json]:
        """Describe the operations of a route."""
        paths, components = super().build_paths(rule)
        endpoint = self._app.view_functions[rule.endpoint]
        for operation in (item for path in paths.values() for item in path.values()):
            for status in getattr(endpoint, _PROBLEMS, ()):
                operation["responses"][str(status)] = _problem_response(status)
            # A copy: the methods of a route share one object.
            operation["responses"] = {
                str(status): {**response, "headers": {"X-Request-Id": _REQUEST_ID}}
                for status, response in sorted(
                    operation["responses"].items(), key=lambda item: str(item[0])
                )
            }
        components.update(_components(schemas.Problem)[1])
        return paths, components

    def build_path_parameter(self, name: str, converter: BaseConverter) -> Json:
        """Describe a part of the path; all of ours are session ids."""
        parameter: Json = super().build_path_parameter(name, converter)
        if name == "session_id":
            parameter["schema"]["format"] = "uuid"
        return parameter

    def build_querystring_parameters(self, model: Any) -> tuple[list[Json], Json]:
        """Describe the query of a request: also which of it must be there."""
        parameters, components = super().build_querystring_parameters(model)
        described = msgspec.inspect.type_info(model)
        fields = described.fields if isinstance(described, msgspec.inspect.StructType) else ()
        required = {field.encode_name for field in fields if field.required}
        for parameter in parameters:
            if parameter["name"] in required:
                parameter["required"] = True
        return parameters, components

    def build_request_body(self, model: Any, source: DataSource) -> tuple[Json, Json]:
        """Describe the body of a request."""
        schema, components = _components(model)
        return {"content": {schemas.JSON: {"schema": schema}}}, components

    def build_response_object(self, model: Any, headers_model: Any) -> tuple[Json, Json]:
        """Describe a response."""
        schema, components = _components(model)
        return (
            {"description": model.__doc__, "content": {schemas.JSON: {"schema": schema}}},
            components,
        )


_REQUEST_ID: Json = {"description": "Names the request in the log", "schema": {"type": "string"}}


def _components(model: Any) -> tuple[Json, Json]:
    """Return the reference to a structure, and all structures that it leads to."""
    (reference,), components = msgspec.json.schema_components([model], ref_template=REF_TEMPLATE)
    return reference, components


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Checksum Mismatch" if status == 460 else "Error"  # 460 is an invention of tus


def _problem_response(status: int) -> Json:
    reference, _ = _components(schemas.Problem)
    return {
        "description": _phrase(status),
        "content": {problem_kinds.CONTENT_TYPE: {"schema": reference}},
    }
