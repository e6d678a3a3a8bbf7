import pytest
import torch
from transformers import AutoModel

from ct_hf.models import OSTrackConfig
from ct_hf.models.layers import drop_path

from .contract import TrackerContract, assert_equal, perturb


def tiny(**changes):
    fields = {
        "template_size": 32,
        "search_size": 64,
        "patch_size": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "head_channels": 16,
    }
    return OSTrackConfig(**{**fields, **changes})


class TestCenterHead(TrackerContract):
    dropout = {"drop_path_rate": 0.3}
    output_shapes = {"score_map": (1, 8, 8), "score_logits": (1, 8, 8), "size_map": (2, 8, 8), "offset_map": (2, 8, 8)}

    def make_config(self):
        return tiny()


def test_a_new_center_head_expects_few_centres():
    torch.manual_seed(0)
    model = AutoModel.from_config(tiny())
    assert model.head.score.projection.bias.item() == pytest.approx(-2.19)
    assert not model.head.size.projection.bias.any()
    with torch.no_grad():
        scores = model(torch.randn(4, 1, 3, 32, 32), torch.randn(4, 3, 64, 64)).score_map
    assert scores.mean() < 0.2


class TestCandidateElimination(TestCenterHead):
    def make_config(self):
        return tiny(elimination_layers=[0, 1], elimination_keep_ratio=0.7)


class TestCornerHead(TrackerContract):
    dropout = {"attention_dropout": 0.3}
    output_shapes = {"corner_logits": (2, 8, 8)}

    def make_config(self):
        return tiny(head_type="corner")


class TestOtherSizes(TrackerContract):
    """Patches of 16, an odd grid, other factors and four layers."""

    dropout = {"drop_path_rate": 0.3, "attention_dropout": 0.2}
    output_shapes = {"score_map": (1, 5, 5), "score_logits": (1, 5, 5), "size_map": (2, 5, 5), "offset_map": (2, 5, 5)}

    def make_config(self):
        return tiny(
            template_size=48,
            search_size=80,
            patch_size=16,
            search_factor=5.0,
            hidden_size=24,
            num_attention_heads=3,
            intermediate_size=40,
            num_hidden_layers=4,
            qkv_bias=False,
            image_mean=[0.5, 0.4, 0.3],
            image_std=[0.2, 0.3, 0.4],
        )


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 1, 3, 32, 32, generator=generator), torch.randn(2, 3, 64, 64, generator=generator)


def states_of(model, inputs, **kwargs):
    with torch.no_grad():
        states = [model.embed(*inputs, **kwargs)]
        for layer in model.layers:
            states.append(layer(states[-1]))
    return states


class TestElimination:
    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        return perturb(AutoModel.from_config(tiny(elimination_layers=[0, 1]))).eval()

    def test_numbers_of_kept_tokens(self, model, inputs):
        """ceil(0.7 x 64) = 45, ceil(0.7 x 45) = 32, and none go in the third layer."""
        states = states_of(model, inputs)
        assert states[0].search_index is None
        assert [state.search_index.shape[1] for state in states[1:]] == [45, 32, 32]
        assert [state.hidden_states.shape[1] for state in states] == [16 + 64, 16 + 45, 16 + 32, 16 + 32]

    def test_eliminated_tokens_are_zeros_in_their_place(self, model, inputs):
        state = states_of(model, inputs)[-1]
        search = state.groups()["search"]
        for row in range(2):
            kept = state.search_index[row]
            assert len(set(kept.tolist())) == 32
            assert torch.equal(search[row, kept], state.hidden_states[row, 16:])
            gone = [index for index in range(64) if index not in kept]
            assert (search[row, gone] == 0).all()

    def test_importance_is_the_template_s_attention(self, model, inputs):
        """Kept are the tokens to which the centre of the template attends most, by eager attention of the first layer."""
        states = states_of(model, inputs)
        layer = model.layers[0]
        attention = layer.attention
        with torch.no_grad():
            normed = layer.layernorm_before(states[0].hidden_states)
            query, key = (p(normed).view(2, 80, 2, 8).transpose(1, 2) for p in (attention.q_proj, attention.k_proj))
            weights = (query @ key.transpose(2, 3) / 8**0.5).softmax(dim=-1).mean(dim=1)
        center = 1 * 4 + 1  # row 1, column 1 of 4 x 4
        best = weights[:, center, 16:].topk(45, dim=1).indices
        assert torch.equal(best.sort(dim=1).values, states[1].search_index.sort(dim=1).values)

    def test_keep_all_tokens_turns_it_off(self, model, inputs):
        plain = AutoModel.from_config(tiny()).eval()
        plain.load_state_dict(model.state_dict())
        assert_equal(states_of(model, inputs, keep_all_tokens=True), states_of(plain, inputs, keep_all_tokens=True))

    @pytest.mark.parametrize(
        ("region", "rows"),
        [("center_point", [5]), ("center_rectangle", [5, 6, 9, 10]), ("all", list(range(16)))],
    )
    def test_template_regions(self, region, rows):
        model = AutoModel.from_config(tiny(elimination_layers=[1], elimination_template_region=region))
        assert [layer.importance_rows for layer in model.layers] == [None, rows, None]


class TestConfiguration:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"search_size": 60}, "`search_size` .60. must be a multiple of `patch_size` .8."),
            ({"template_size": 0}, "`template_size` must be positive"),
            ({"hidden_size": 15}, "`hidden_size` .15. must be a multiple of `num_attention_heads`"),
            ({"num_templates": 2}, "`num_templates` of OSTrack must be 1, got 2"),
            ({"elimination_keep_ratio": 0.0}, "`elimination_keep_ratio` must be in"),
            ({"elimination_layers": [3]}, "names layer 3, but layers are 0 to 2"),
            ({"head_channels": 4}, "`head_channels` must be at least 8"),
        ],
    )
    def test_refusals(self, fields, message):
        with pytest.raises(Exception, match=message):
            tiny(**fields)

    def test_student(self):
        """Fewer layers, no candidate elimination and no drop path unless asked for; the teacher's is untouched."""
        config = tiny(elimination_layers=[1, 2], drop_path_rate=0.1)
        student = config.for_student(2, hidden_size=8)
        assert (student.num_hidden_layers, student.hidden_size, student.search_size) == (2, 8, 64)
        assert (student.elimination_layers, student.drop_path_rate) == ([], 0.0)
        assert config.for_student(2, elimination_layers=[1]).elimination_layers == [1]
        assert (config.num_hidden_layers, config.elimination_layers) == (3, [1, 2])

    def test_student_refuses_an_unknown_field(self):
        with pytest.raises(ValueError, match="`hiden_size` is not a field of OSTrackConfig"):
            tiny().for_student(2, hiden_size=8)


def test_drop_path_rises_with_depth():
    model = AutoModel.from_config(tiny(drop_path_rate=0.2))
    assert [layer.drop_path_rate for layer in model.layers] == [0.0, 0.1, 0.2]


def test_drop_path_keeps_the_expectation():
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(10000, 1, 2), 0.25, training=True)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.03)
    assert (dropped[:, 0, 0] == dropped[:, 0, 1]).all()
    assert torch.equal(drop_path(torch.ones(3, 1, 2), 0.25, training=False), torch.ones(3, 1, 2))
