import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from ct_hf.models.language import encode_sentences


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A CLIP of four words with random weights, as a folder."""
    folder = tmp_path_factory.mktemp("clip")
    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        "red</w>",
        "car</w>",
        "boat</w>",
        *"redcarbot",
        "t</w>",
        "d</w>",
        "r</w>",
    ]
    vocab = {word: index for index, word in enumerate(dict.fromkeys(words))}
    merges = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "r</w>"), ("b", "o"), ("bo", "a"), ("boa", "t</w>")]
    vocab |= {word: len(vocab) + index for index, word in enumerate(["re", "ca", "bo", "boa"])}
    CLIPTokenizer(vocab=vocab, merges=merges).save_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=16, intermediate_size=32, projection_dim=12, num_hidden_layers=2,
        num_attention_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    return str(folder)


def test_one_feature_a_sentence(clip):
    features = encode_sentences(["red car", "red boat", "car"], clip)
    assert features.shape == (3, 12) and features.dtype == torch.float32 and not features.requires_grad
    assert not torch.allclose(features[0], features[1])


def test_company_does_not_matter(clip):
    """Sentences of unlike lengths are padded; what pads them is not seen."""
    together = encode_sentences(["car", "red car red boat red car"], clip)
    torch.testing.assert_close(together[:1], encode_sentences(["car"], clip))


def test_long_sentences_are_cut(clip):
    long = encode_sentences(["red " * 200], clip)
    torch.testing.assert_close(long, encode_sentences(["red " * 75], clip))


@pytest.mark.parametrize("sentences", [[], "red car", ["red car", " "]])
def test_nothing_said(sentences):
    with pytest.raises(ValueError, match="`sentences` must be a list of at least one sentence"):
        encode_sentences(sentences)
