"""The description of one choice of a room: its options, and the training settings that a model recommends."""

from __future__ import annotations

from cnnperf import datasets, engines, executors, models, registry
from cnnperf.bench import settings_of
from cnnperf.ipc.messages import ChoiceDescribed, ChoiceRequest
from cnnperf.task import Choice

GIVEN_BY_ROOM = {
    "models": models.GIVEN,
    "datasets": datasets.GIVEN,
    "devices": (),
    "engines": engines.GIVEN,
    "executors": executors.GIVEN,
}
"""The rooms whose choices have options, with the parameters of their verb that are none; a stage has a section."""


def describe_choice(request: ChoiceRequest) -> ChoiceDescribed:
    """Describe a choice. Raises UsageError with the nearest name if there is none."""
    room, name = request.room, request.name
    kind = settings_of(name) if room == "stages" else registry.options(registry.find(room, name), GIVEN_BY_ROOM[room])
    schema = kind.model_json_schema()
    recipes = {}
    if room == "models":
        model = Choice.model_construct(name=name)
        recipes = {dataset: models.recipe(model, dataset, "cpu") for dataset in registry.names("datasets")}
    return ChoiceDescribed(
        options=schema.get("properties", {}), required=tuple(schema.get("required", ())), recipes=recipes
    )
