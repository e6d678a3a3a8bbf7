"""What sentences are to a tracker with a language token: features of CLIP's text tower."""

from __future__ import annotations

import torch


CLIP = "openai/clip-vit-large-patch14"
"""The CLIP whose text tower SUTrack was trained with, frozen."""


@torch.no_grad()
def encode_sentences(sentences: list[str], clip: str = CLIP) -> torch.Tensor:
    """
    Describe targets in words, for [`~tracker.PreTrainedTracker.start`] or `text_features` of the model.

    The text tower is loaded for this call and let go of; a target's sentence is encoded once, not per frame.

    Args:
        sentences (`list[str]`): one for each target; what is beyond CLIP's 77 tokens is cut off.
        clip (`str`, *optional*, defaults to `"openai/clip-vit-large-patch14"`): folder or Hub repository of the CLIP.

    Returns:
        `torch.Tensor` of shape `(len(sentences), dim)` in fp32.

    Raises:
        ValueError: there is no sentence, or one is empty; a tracker that is told nothing has a feature of its own for that.

    Example:

    ```python
    >>> features = encode_sentences(["the white car in front"])
    >>> session = model.start(frame, box, text_features=features[0])
    ```
    """
    if isinstance(sentences, str) or not sentences or not all(sentence.strip() for sentence in sentences):
        raise ValueError(
            f"`sentences` must be a list of at least one sentence, none of them empty, got {sentences!r}."
        )
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(clip)
    tower = CLIPTextModelWithProjection.from_pretrained(clip, dtype=torch.float32).eval()
    tokens = tokenizer(sentences, padding=True, truncation=True, max_length=77, return_tensors="pt")
    return tower(**tokens).text_embeds


__all__ = ["encode_sentences"]
