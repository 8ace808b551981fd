"""What is read from the source of PaddleSeg is what PaddleSeg registers."""

import inspect

import hydra.utils
import pytest

from segslim.errors import UserError
from segslim.paddle_compat import import_paddleseg
from segslim.paddleseg.components import component_node, components
from segslim.paddleseg.section import Section

REGISTRIES = ("MODELS", "BACKBONES", "LOSSES", "TRANSFORMS", "OPTIMIZERS", "DATASETS")


@pytest.fixture(scope="module")
def registered():
    """Names and classes of each of PaddleSeg's registries."""
    import_paddleseg()
    import paddleseg.datasets
    import paddleseg.optimizers
    import paddleseg.transforms  # noqa: F401
    from paddleseg.cvlibs import manager

    return {registry: getattr(manager, registry).components_dict for registry in REGISTRIES}


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_component_of_paddleseg_is_known_and_no_other(registered, registry):
    known = {name for name, component in components().items() if component.registry == registry}
    assert known == set(registered[registry])


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_target_exists_and_takes_the_arguments_that_are_read(registered, registry):
    for name, expected in registered[registry].items():
        component = components()[name]
        assert hydra.utils.get_object(component.target) is expected
        names, needed, takes_more = component.arguments()
        parameters = inspect.signature(expected).parameters.values()
        plain = [each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        assert takes_more == (len(plain) < len(parameters)), name
        assert names == [each.name for each in plain]
        assert needed == [each.name for each in plain if each.default is each.empty]


def test_types_are_translated_inside_out():
    given = {"type": "OCRNet", "backbone": {"type": "HRNet_W18", "padding_same": False}, "backbone_indices": [0]}
    assert component_node(
        Section("a.yml", "model", given), "MODELS", "BACKBONES", defaults={"num_classes": 3, "width": 9}
    ) == {
        "_target_": "paddleseg.models.OCRNet",
        "backbone": {"_target_": "paddleseg.models.HRNet_W18", "padding_same": False},
        "backbone_indices": [0],
        "num_classes": 3,
    }


def test_an_argument_that_a_component_lacks_is_named_with_its_place():
    section = Section("a.yml", "model.backbone", {"type": "STDCNet"})
    with pytest.raises(UserError, match=r"^a\.yml: model\.backbone\.type=STDCNet: .* has none of that name"):
        component_node(section, "BACKBONES")
