"""The format of policy files as JSON Schema (draft 2020-12), for editors that complete and check while one types.

It is generated from the models that loading uses, so the two agree on keys, types and words. What names refer to, and
whether chains and conditions make sense, only loading knows: what the schema refuses loading refuses too, and not the
other way around.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from datasync.policy.document import Document
from datasync.policy.key_texts import KEYS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FORMAT = "datasync.policy/v1"
COMMENT = "Generated from datasync/policy/document.py by: datasync policy schema"

_SCALAR = {"type": ["string", "number", "boolean"]}
_AT_EDGE_OR_CLOUD = {"required": ["place"], "properties": {"place": {"enum": ["edge", "cloud"]}}}
_ALLOWS = {"required": ["effect"], "properties": {"effect": {"const": "allow"}}}
_MORE: Mapping[str, dict[str, Any]] = {
    "WorkerSpec": {"additionalProperties": _SCALAR, "if": _AT_EDGE_OR_CLOUD, "then": {"required": ["operator"]}},
    "Selector": {"minProperties": 1},
    "RuleSpec": {"if": _ALLOWS, "then": {"required": ["fields"]}},
    "PolicyTest": {
        "oneOf": [{"required": ["ask", "expect"]}, {"required": ["never"]}, {"required": ["handover", "expect"]}]
    },
}
"""What loading checks beside a model, as far as a schema can say it."""


def schema() -> JsonSchemaValue:
    """Return the schema of policy files."""
    made = Document.model_json_schema(schema_generator=_Generator)
    return {"$schema": DIALECT, "$comment": COMMENT, **made, "title": FORMAT}


def text() -> str:
    """Return the schema as the text of a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


class _Generator(GenerateJsonSchema):
    """Says what a file may have in it; pydantic's own says what the models take from Python."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made: JsonSchemaValue = super().model_schema(schema)
        model = schema["cls"]
        made["title"] = model.__name__.removesuffix("Spec")
        made["description"] = made["description"].replace("``", "`")
        for key, value in made["properties"].items():
            names = [f"{each.__name__}.{key}" for each in model.__mro__]
            value["description"] = KEYS[next((name for name in names if name in KEYS), key)]
        return made | _MORE.get(model.__name__, {})

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Return what stands where None may: in a file a key is left out, and is never null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Return the default beside the schema, if it is one word: others are what leaving the key out means."""
        made = self.generate_inner(schema["schema"])
        default = schema.get("default")
        return {**made, "default": default} if isinstance(default, str | bool) else made

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        return {**made, "additionalProperties": False} if "patternProperties" in made else made

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Return the union as a choice by its tag, so that an editor completes and complains about the one meant."""
        tag = schema["discriminator"]
        choices = {str(value): self.generate_inner(choice) for value, choice in schema["choices"].items()}
        return {
            "type": "object",
            "required": [tag],
            "properties": {tag: {"enum": [*choices]}},
            "allOf": [
                {"if": {"required": [tag], "properties": {tag: {"const": value}}}, "then": choice}
                for value, choice in choices.items()
            ],
        }

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a key is its own title."""
        return False
