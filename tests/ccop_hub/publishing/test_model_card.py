"""Names from files reach the model card as text."""

import yaml
from markdown_it import MarkdownIt

from ccop_hub.architectures import build_backbone
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.normalization import INPUT_FACTS
from ccop_hub.publishing.evaluations import Evaluation
from ccop_hub.publishing.model_card import model_card

HOSTILE = "a|b\n# c <script>alert(1)</script> `d` \x1b[31m \u202e[e](http://f) \udce9 x\x85y"


def test_hostile_names_are_text(tmp_path) -> None:
    names = {f"backbone.{name}": value for name, value in build_backbone("resnet18").state_dict().items()}
    facts = {
        "input": INPUT_FACTS,
        "objective": HOSTILE,
        "dataset": {"name": HOSTILE, "images": [HOSTILE], "digest": None},
        "versions": {HOSTILE: {"a": HOSTILE}},
        "image_size": {"b": 1},
        "created": "x" * 10**6,
    }
    weights = Weights("w", "resnet18", names, facts, "sha256:0", str(tmp_path / "a`b.safetensors"), "timm")
    evaluation = Evaluation(b"", HOSTILE, HOSTILE, HOSTILE, 3, HOSTILE, HOSTILE, 0, {HOSTILE: 12.5}, (HOSTILE,))
    card = str(model_card(weights, "org/name", "mit", [evaluation]))
    card.encode()
    assert len(card) < 50_000
    tokens = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or []}
    assert not kinds & {"html_block", "html_inline", "link_open", "image"}
    assert sum(token.type == "heading_open" for token in tokens) == 6
    rows = [token for token in tokens if token.type == "tr_open"]
    cells = [token for token in tokens if token.type in ("td_open", "th_open")]
    training = 1 + 7
    assert (len(rows), len(cells)) == (training + 2, 2 * training + 7 * 2)
    head = yaml.safe_load(card.split("---\n", 2)[1])
    shown = r"a|b # c <script>alert(1)</script> `d` \x1b[31m \u202e[e](http://f) \udce9 x y"
    assert shown in head["tags"]
    assert head["model-index"][0]["results"][0]["dataset"]["name"] == shown
