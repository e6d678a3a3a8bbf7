"""What every tracker must hold in training, and of its state between layers."""

import copy
import itertools

import pytest
import torch
from transformers import AutoModel

from ct_hf.compression import MixedTracker, StagePlan
from ct_hf.models import TrackerState

from .contract_tools import assert_equal, perturb, tensors_of


class TrainingContract:
    """Part of [`~contract.TrackerContract`], whose fixtures and attributes it uses."""

    dropout: dict[str, float]

    def test_every_parameter_learns(self, model, inputs, labels):
        """A head without a label of its own learns by guidance."""
        model.train()
        teacher = copy.deepcopy(model).eval()
        with torch.no_grad():
            target = perturb(teacher, seed=1)(**inputs)
        output = model(**inputs, search_boxes=labels)
        (output.loss + sum(model.compute_guidance(output, target).values())).backward()
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []

    def test_loss_falls(self, model, inputs, labels):
        """A few steps on one batch."""
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-3)
        losses = []
        for _ in range(20):
            loss = model(**inputs, search_boxes=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert min(losses[-3:]) < 0.9 * losses[0]

    def test_reentrant_checkpoints_are_refused(self, model):
        """They would leave all layers without gradient, and say nothing."""
        with pytest.raises(ValueError, match="`use_reentrant` is True"):
            model.activation_checkpointing_enable({"use_reentrant": True})
        assert not model.is_activation_checkpointing

    @pytest.mark.parametrize("random", [False, True])
    def test_checkpointing_equals_plain(self, config, inputs, labels, random):
        """Loss and gradients bit for bit; layers run a second time in the backward pass, with the same dropout."""
        fields = {**config.to_dict(), **(self.dropout if random else {})}
        torch.manual_seed(0)
        model = AutoModel.from_config(type(config).from_dict(fields))
        calls = []
        next(model.train().layers[0].children()).register_forward_pre_hook(lambda *args: calls.append(1))
        results = []
        for checkpointing in (False, True):
            if checkpointing:
                model.activation_checkpointing_enable()
            calls.clear()
            model.zero_grad()
            torch.manual_seed(0)
            loss = model(**inputs, search_boxes=labels).loss
            loss.backward()
            assert len(calls) == (2 if checkpointing else 1)
            gradients = {
                name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None
            }
            results.append({"loss": loss.detach(), **gradients})
        assert_equal(results[1], results[0])

    def test_state_is_not_mutated(self, model, inputs):
        """Neither embedding, nor any layer, nor decoding changes what it was given, in training and evaluation."""
        for training in (False, True):
            model.train(training)
            before = {name: value.clone() for name, value in inputs.items()}
            with torch.no_grad():
                state = model.embed(**inputs)
                assert_equal(inputs, before)
                for act in [*model.layers, model.decode]:
                    before, fields = copy.deepcopy(tensors_of(state)), {**state}
                    result = act(state)
                    assert_equal(tensors_of(state), before)
                    assert all(state[name] is value for name, value in fields.items())
                    state = result

    def test_state_splits_and_joins(self, model, inputs):
        """Samples of a batch may go their own ways at any boundary."""
        with torch.no_grad():
            state = model.embed(**inputs)
            for layer in [None, *model.layers]:
                state = layer(state) if layer is not None else state
                swapped = state.select([1, 0])
                assert_equal(TrackerState.concatenate([swapped.select([1]), swapped.select([0])]), state)

    def test_identity_student_has_nothing_to_learn(self, model, inputs, labels):
        """Student = teacher, one layer a stage: on every path mimicking is zero, and guidance pulls nowhere."""
        student, num_layers = copy.deepcopy(model), len(model.layers)
        mixed = MixedTracker(student, model, StagePlan.even(num_layers, num_layers)).train()
        for path in itertools.product([0, 1], repeat=num_layers):
            if not any(path):
                continue
            student.zero_grad()
            terms = mixed(paths=[path] * len(labels), **inputs, search_boxes=labels).loss_dict
            assert terms["mimicking"] == 0, path
            guidance = {name: value for name, value in terms.items() if name.startswith("guidance_")}
            assert guidance
            sum(guidance.values()).backward()
            for name, parameter in student.named_parameters():
                assert parameter.grad is None or (parameter.grad == 0).all(), (path, name)
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_identity_student_with_a_path_for_each_sample(self, model, inputs, labels):
        """As above up to rounding, since samples then run in batches of other sizes."""
        num_layers = len(model.layers)
        mixed = MixedTracker(copy.deepcopy(model), model, StagePlan.even(num_layers, num_layers)).train()
        paths = [path for path in itertools.product([0, 1], repeat=num_layers) if any(path)]
        for pair in itertools.pairwise(paths):
            terms = mixed(paths=pair, **inputs, search_boxes=labels).loss_dict
            assert terms["mimicking"] < 1e-10
            assert terms["guidance_l1"] < 1e-4
