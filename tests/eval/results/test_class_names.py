from ccop_eval.results.class_names import shown_class


def test_imagenet_ids_become_words_and_other_names_stay() -> None:
    assert shown_class("n01443537") == "goldfish"
    assert shown_class("n04399382") == "teddy"
    assert shown_class("goldfish") == "goldfish"
    assert shown_class("n99999999") == "n99999999"
    assert shown_class("n014435370") == "n014435370"
