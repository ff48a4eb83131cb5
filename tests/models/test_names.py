import subprocess
import sys

import open_clip
import pytest

from ubt.common.errors import UserError
from ubt.models.checks import check_model
from ubt.models.settings import ModelSettings, image_size_px, model_files


def test_every_model_of_open_clip_is_known_and_tiny_rn():
    assert set(model_files()) == {*open_clip.list_models(), "tiny-rn"}


@pytest.mark.parametrize(("name", "size_px"), [("tiny-rn", 32), ("RN50", 224), ("RN50x4", 288), ("ViT-L-14-336", 336)])
def test_the_image_size_is_read_from_the_models_file(name, size_px):
    assert image_size_px(name) == size_px


def test_every_model_has_an_image_size():
    for name in model_files():
        size = open_clip.get_model_config(name)["vision_cfg"].get("image_size", 224)
        assert image_size_px(name) == (size if isinstance(size, int) else size[0]), name


def test_a_checkpoint_that_is_not_there_is_reported_together_with_a_wrong_name(tmp_path):
    with pytest.raises(UserError) as caught:
        check_model(ModelSettings(name="RN51", checkpoint=tmp_path / "none.pt"))
    assert [problem.where for problem in caught.value.problems] == ["victim.model.name", "victim.model.checkpoint"]


def test_a_known_name_is_fine():
    check_model(ModelSettings(name="RN50"))


def test_names_and_sizes_do_not_wait_for_torch():
    code = """
import sys
from ubt.models.checks import check_model
from ubt.models.settings import image_size_px
from ubt.models.settings import ModelSettings
assert image_size_px("RN50") == 224
check_model(ModelSettings(name="ViT-B-32"))
loaded = {"torch", "open_clip", "ray"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
