"""What a real Jupyter kernel sends for a cell."""

import sys

import pytest
from jupyter_client.manager import KernelManager

SECONDS = 60


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """A function that runs a cell and returns its messages, as pairs of type and content."""
    manager = KernelManager(kernel_name="python3", transport="tcp")
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(cwd=str(tmp_path_factory.mktemp("kernel")))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=SECONDS)

    def run(code):
        found = []
        reply = client.execute_interactive(
            code, timeout=SECONDS, output_hook=lambda message: found.append((message["msg_type"], message["content"]))
        )
        assert reply["content"]["status"] == "ok", reply["content"]
        return [one for one in found if one[0] not in ("status", "execute_input")]

    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_table_is_html_with_text_beside_it(cell):
    ((kind, content),) = cell("import pandas as pd, sparkdl\nsparkdl.show(pd.DataFrame({'a': ['<b>', None]}))")
    assert kind == "display_data"
    assert "&lt;b&gt;" in content["data"]["text/html"]
    assert "<table" in content["data"]["text/html"]
    assert content["data"]["text/plain"] == "a\n----\n<b>\nnull"


def test_html_of_others_has_its_text_beside_it(cell):
    code = "class Own:\n    _repr_html_ = lambda self: '<b>mine</b>'\n    __repr__ = lambda self: 'mine'\nsparkdl.show(Own())"
    ((_, content),) = cell(code)
    assert "<b>mine</b>" in content["data"]["text/html"]
    assert content["data"]["text/plain"] == "mine"


def test_pictures_and_sounds_are_within_the_html(cell):
    code = """
    import numpy as np
    from sparkdl import zeppelin
    t = np.arange(8000) / 8000
    zeppelin.audio(np.sin(2 * np.pi * 440 * t), 8_000)
    zeppelin.spectrogram(np.sin(2 * np.pi * 440 * t), 8_000)
    """
    sound, picture = (content["data"]["text/html"] for _, content in cell(code))
    assert (
        '<audio controls preload="metadata" aria-label="sound, 1.00 s at 8,000 Hz" src="data:audio/wav;base64,' in sound
    )
    assert '<img alt="spectrogram: power by time and frequency"' in picture
    assert 'src="data:image/png;base64,' in picture


def test_a_view_is_drawn_again_in_its_place(cell):
    code = """
    from sparkdl.showing import display
    from sparkdl.showing.pieces import Facts
    view = display.View()
    for i in range(3):
        view.draw([Facts((("rows", str(i)),))])
    """
    messages = cell(code)
    assert [kind for kind, _ in messages] == ["display_data", "update_display_data", "update_display_data"]
    assert len({content["transient"]["display_id"] for _, content in messages}) == 1
    assert [content["data"]["text/plain"] for _, content in messages] == ["rows  0", "rows  1", "rows  2"]


def test_models_show_themselves(cell):
    code = """
    from torch import nn
    from sparkdl import Bundle, Signature, TensorSpec
    Bundle.from_module(nn.Linear(4, 1), Signature((TensorSpec("x", "float32", (4,), ("x",), ("array<float>",)),)))
    """
    ((kind, content),) = cell(code)
    assert kind == "execute_result"
    assert "x: float32[B, 4] from x array&lt;float&gt;" in content["data"]["text/html"]
    assert "5 weights" in content["data"]["text/html"]
