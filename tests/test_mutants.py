"""One-line mistakes in curves, pools, targets and calibration, and the test that sees each.

Every mutant is a copy of the package, without its C library, with one line changed; the named test runs on it, in a
process of its own, and must fail. What is wrong is on purpose what a tired author might write.
"""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.changed_package import ROOT, copy_package, run


@dataclass(frozen=True)
class Mutant:
    file: str  # below src/lopsided
    right: str
    wrong: str
    killer: str  # below tests


MUTANTS = {
    "positive: attached focus forgets gamma": Mutant(
        "losses/curves.py",
        "slope = slope - gamma * p * base",
        "slope = slope - p * base",
        "losses/test_losses.py::test_value_and_gradient_equal_the_textbook",
    ),
    "positive: the second term is not differentiated": Mutant(
        "losses/curves.py",
        "return tuple(order * term for order, term in enumerate(terms, start=1))",
        "return tuple(terms)",
        "losses/test_losses.py::test_value_and_gradient_equal_the_textbook",
    ),
    "negative: the margin enters only one factor": Mutant(
        "losses/curves.py",
        "rest = q + margin",
        "rest = q",
        "losses/test_losses.py::test_value_and_gradient_equal_the_textbook",
    ),
    "negative: a slope is left below the margin": Mutant(
        "losses/curves.py",
        "return focus * base, slope if vanishes else select(r <= 0, 0.0, slope)",
        "return focus * base, slope",
        "losses/test_numerics.py::test_negatives_below_the_clip_cost_exactly_nothing",
    ),
    "negative: 1 - r by subtraction": Mutant(
        "losses/curves.py",
        "rest = q + margin",
        "rest = 1 - r",
        "losses/test_numerics.py::test_accuracy_against_mpmath",
    ),
    "negative: the official constant is dropped": Mutant(
        "losses/curves.py",
        "base = base + r * _horner(terms, r) + constant",
        "base = base + r * _horner(terms, r)",
        "losses/test_losses.py::test_value_and_gradient_equal_the_textbook",
    ),
    "hill: the slope of p^3 without its 3": Mutant(
        "losses/curves.py",
        "return square * (peak - p), square * q * ((2 * peak - 3) + 3 * q)",
        "return square * (peak - p), square * q * ((2 * peak - 1) + q)",
        "losses/test_numerics.py::test_slopes_are_derivatives_twice",
    ),
    "exponent: the threshold is added": Mutant(
        "losses/curves.py",
        "return _times(scale, z - shift if shift else z), scale",
        "return _times(scale, z + shift if shift else z), scale",
        "losses/test_closed_form.py::test_zlpr_decides_at_its_threshold_whatever_its_scale_and_margin",
    ),
    "sum: the weight is squared": Mutant(
        "losses/pools.py",
        "sides = [select(a > 0, a * v, 0.0).sum(-1)",
        "sides = [select(a > 0, a * a * v, 0.0).sum(-1)",
        "compute/test_blocks.py::test_every_kind_of_labels_cut_anywhere",
    ),
    "log-sum-exp: the 1 of the threshold is lost": Mutant(
        "losses/pools.py",
        "return softplus(sums).sum(0)",
        "return sums.sum(0)",
        "losses/test_losses.py::test_zlpr_is_the_pairwise_rank_loss_with_a_threshold",
    ),
    "log-sum-exp: shares carry the rounding of the sum": Mutant(
        "losses/sums.py",
        "return weight * exponential((value - peak.unsqueeze(-1)) - rest.unsqueeze(-1))",
        "return weight * exponential(value - (peak + rest).unsqueeze(-1))",
        "losses/test_numerics.py::test_errors_in_float32_are_at_most_twice_the_textbooks",
    ),
    "log-sum-exp: a weight does not enter the logarithm": Mutant(
        "losses/sums.py",
        "nonzero((weight * exponential(present - peak.unsqueeze(-1))).sum(-1)).log()",
        "nonzero(((weight > 0) * exponential(present - peak.unsqueeze(-1))).sum(-1)).log()",
        "targets/test_inputs.py::test_weights_of_zlpr_stand_inside_the_logarithm",
    ),
    "pairs: the powers change sides": Mutant(
        "losses/pools.py",
        "return self.power_pos * sums[0] + self.power_neg * sums[1]",
        "return self.power_neg * sums[0] + self.power_pos * sums[1]",
        "losses/test_losses.py::test_value_and_gradient_equal_the_textbook",
    ),
    "softmax: only the negatives compete": Mutant(
        "losses/pools.py",
        "positive = share - weights[0] / nonzero(mass).unsqueeze(-1)",
        "positive = -weights[0] / nonzero(mass).unsqueeze(-1)",
        "losses/test_numerics.py::test_slopes_are_derivatives_twice",
    ),
    "threshold softmax: positives do not compete": Mutant(
        "losses/pools.py",
        "(mass * up.sigmoid()).unsqueeze(-1) * won",
        "up.sigmoid().unsqueeze(-1) * won",
        "nn/test_thresholds.py::test_value_and_gradient_are_those_of_the_papers",
    ),
    "side means: parts count alike, whatever their largest weight": Mutant(
        "losses/pools.py",
        "relative = states[:, 2:4] * (states[:, 4:] / nonzero(peaks))",
        "relative = states[:, 2:4]",
        "nn/test_linear.py::test_weights_masks_and_smoothing",
    ),
    "decoupled softmax: a part folds with its own negatives": Mutant(
        "compute/head/passes.py",
        "part = problem.evaluator.summarize_again(z, supervision, totals.state)",
        "part = problem.evaluator.summarize_again(z, supervision, problem.evaluator.summarize(z, supervision))",
        "nn/test_linear.py::test_weights_masks_and_smoothing",
    ),
    "none class: parts count alike, however many labels they have": Mutant(
        "losses/none_class.py",
        "*merge_means(states[:, 1], states[:, 2])",
        "states[:, 1].mean(0), states[:, 2].sum(0)",
        "nn/test_linear.py::test_weights_masks_and_smoothing",
    ),
    "balanced: positives are not weighed among the labels of their row": Mutant(
        "compute/counted.py",
        "sampled = (y * rarity).sum(-1, keepdim=True) if",
        "sampled = rarity.sum(-1, keepdim=True) if",
        "nn/test_balanced.py::test_value_and_gradient_are_the_published_ones",
    ),
    "balanced: a range is weighed among its own labels": Mutant(
        "nn/linear.py",
        "counted = counted.having_seen(",
        "counted.having_seen(",
        "nn/test_balanced.py::test_a_head_makes_the_same_of_ranges_of_labels",
    ),
    "targets: w - y instead of w (1 - y)": Mutant(
        "targets/supervision.py",
        "positive, negative = positive * weight, negative * weight",
        "positive, negative = positive * weight, weight - positive",
        "targets/test_inputs.py::test_weights_multiply",
    ),
    "targets: smoothing to 1 - e": Mutant(
        "targets/supervision.py",
        "positive = positive * (1 - self.label_smoothing) + self.label_smoothing / 2",
        "positive = positive * (1 - self.label_smoothing)",
        "targets/test_inputs.py::test_label_smoothing",
    ),
    "targets: unknown labels are counted": Mutant(
        "targets/supervision.py",
        'return (known if what == "labels" else known.any(-1)).sum()',
        'return (known.logical_or(known.logical_not()) if what == "labels" else known.any(-1)).sum()',
        "losses/test_losses.py::test_reductions",
    ),
    "calibration: the weight of positives is forgotten": Mutant(
        "losses/closed_form.py",
        "rise / (rise + pos_weight * fall)",
        "rise / (rise + fall)",
        "losses/test_closed_form.py::test_weights_and_smoothing_are_undone",
    ),
    "calibration: the threshold forgets the smoothing": Mutant(
        "losses/closed_form.py",
        "smoothed = eta * (1 - label_smoothing) + label_smoothing / 2",
        "smoothed = eta",
        "losses/test_closed_form.py::test_weights_and_smoothing_are_undone",
    ),
    "calibration: odds enter the wrong side": Mutant(
        "losses/closed_form.py",
        "return negative.ge(each * positive)",
        "return (negative * each).ge(positive)",
        "nn/test_linear.py::test_biases_start_where_the_shares_settle",
    ),
    "product: tiny^gamma for 0^gamma": Mutant(
        "compute/product.py",
        "(gamma == 0).to(miss.dtype))",
        "miss.clamp_min(torch.finfo(miss.dtype).tiny) ** gamma)",
        "targets/test_inputs.py::test_a_product_is_zero_where_the_clip_leaves_nothing",
    ),
    "controller: the printed sign": Mutant(
        "nn/adaptive.py",
        'error = self.target - gap if self.rule == "stable" else gap - self.target',
        'error = gap - self.target if self.rule == "stable" else self.target - gap',
        "nn/test_adaptive.py::test_one_step_by_hand",
    ),
    "eager: the second derivative forgets the state": Mutant(
        "compute/eager.py",
        "if torch.is_grad_enabled():  # a second",
        "if False:  # a second",
        "losses/test_numerics.py::test_slopes_are_derivatives_twice",
    ),
    "parts: sums are merged without their peaks": Mutant(
        "losses/sums.py",
        "return peak, (rests + (peaks - peak)).logsumexp(0)",
        "return peak, rests.logsumexp(0)",
        "nn/test_linear.py::test_every_loss_and_kind_of_targets",
    ),
    "parts: a soft target goes to another label": Mutant(
        "compute/head/label_ranges.py",
        "supervision.values[mine[first:last]]",
        "supervision.values[first:last]",
        "nn/test_linear.py::test_every_loss_and_kind_of_targets",
    ),
    "head: the row weight is forgotten in the bias": Mutant(
        "compute/head/passes.py",
        "self.bias_grad[place] = slopes.T.mv(self.scales)",
        "self.bias_grad[place] = slopes.sum(0)",
        "nn/test_linear.py::test_weights_masks_and_smoothing",
    ),
    "head: the weight is updated before hidden has its gradient": Mutant(
        "compute/head/passes.py",
        "weight = self.work.weight_of(place)",
        "weight = self.work.weight_of(place) * 0.99",
        "nn/test_fused.py::test_equal_to_torchs_optimisers",
    ),
    "head: the factor from above is left out": Mutant(
        "compute/head/passes.py",
        "made = descend(problem, hidden, weight, bias, totals, ctx.needs_input_grad[:3], grad)[1]",
        "made = descend(problem, hidden, weight, bias, totals, ctx.needs_input_grad[:3])[1]",
        "nn/test_linear.py::test_every_loss_and_kind_of_targets",
    ),
    "head: mask and row weight are not passed on": Mutant(
        "nn/head.py",
        "problem = self._problem(hidden, targets, mask, row_weight, self.fused_step)\n        flat",
        "problem = self._problem(hidden, targets, None, None, self.fused_step)\n        flat",
        "nn/test_fused.py::test_all_that_is_said_reaches_the_step",
    ),
    "top k: ties as they come": Mutant(
        "compute/topk.py",
        "    if tied.any():",
        "    if False:",
        "nn/test_linear.py::test_topk_breaks_ties_by_label",
    ),
    "rounding: always down": Mutant(
        "nn/fused.py",
        "noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=x.device, generator=generator)",
        "noise = torch.zeros_like(bits)",
        "nn/test_fused.py::test_stochastic_rounding_is_right_on_average",
    ),
    "ranked: the ideal of a row with few labels is that of many": Mutant(
        "metrics/top_k.py",
        "ideal = (best[:, :k] @ discount[:k]).clamp_min(1)",
        "ideal = discount[:k].sum()",
        "metrics/test_top_k.py::test_equal_to_the_definitions_however_the_rows_are_cut",
    ),
    "ranked: the best labels are the most frequent": Mutant(
        "metrics/top_k.py",
        "inverse.sort(descending=True)",
        "inverse.sort()",
        "metrics/test_top_k.py::test_equal_to_the_definitions_however_the_rows_are_cut",
    ),
    "sparse rows: an error is told of the row before": Mutant(
        "data/formats/svmlight.py",
        'np.searchsorted(lengths.cumsum(), entry, side="right")',
        'np.searchsorted(lengths.cumsum(), entry, side="left")',
        "data/test_svmlight.py::test_bad_files_are_named_in_one_line",
    ),
    "sparse rows: features that no training row had move the others": Mutant(
        "data/inputs.py",
        "indptr = pad(known.cumsum(0), (1, 0))[self.indptr]",
        "indptr = self.indptr",
        "models/test_bag.py::test_features_that_no_training_row_had_are_left_out_before_lengths_are_measured",
    ),
    "fit: a continued run forgets Adagrad's sums": Mutant(
        "training/state.py",
        '            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})',
        "            pass",
        "jobs/test_fit_command.py::test_a_killed_run_goes_on_as_if_nothing_had_happened",
    ),
    "fit: the order depends on the epochs before": Mutant(
        "training/loop.py",
        "torch.Generator().manual_seed(random_seed(self.seed, number))",
        "torch.Generator().manual_seed(torch.seed())",
        "jobs/test_fit_command.py::test_a_killed_run_goes_on_as_if_nothing_had_happened",
    ),
    "evaluate: dropout stays on": Mutant(
        "models/model.py",
        "        self.network.eval()\n",
        "",
        "jobs/test_fit_command.py::test_results_are_those_of_all_logits",
    ),
    "significance: what a seed makes of the rows counts twice": Mutant(
        "metrics/significance.py",
        "return ((seeds * of_mean - differences.var(0).mean(1)) / (seeds - 1)).clamp_min(0)",
        "return of_mean",
        "metrics/test_significance.py::test_the_rows_count_for_what_they_do_to_all_seeds",
    ),
    "significance: splits are taken to share nothing": Mutant(
        "metrics/significance.py",
        "1 / values.shape[1] + ratio",
        "1 / values.shape[1]",
        "metrics/test_significance.py::test_false_positives_of_splits_that_share_rows",
    ),
    "integrations: an adaptive gamma begins anew after a checkpoint": Mutant(
        "integrations/transformers.py",
        "            module.set_extra_state(torch.tensor(stored[name], dtype=torch.float64))",
        "            pass",
        "integrations/test_transformers.py::test_an_adaptive_loss_goes_on_from_a_checkpoint",
    ),
    "integrations: metrics of an epoch are added to those before": Mutant(
        "integrations/lightning.py",
        "self._metrics, self._collects = None, True",
        "self._collects = True",
        "integrations/test_lightning.py::test_metrics_are_those_of_the_validation_and_test_rows",
    ),
    "integrations: a classifier uses up the user's random numbers": Mutant(
        "integrations/sklearn.py",
        "with torch.random.fork_rng(devices=[]):",
        "with warnings.catch_warnings():",
        "integrations/test_sklearn.py::test_other_models_are_trained_too_and_no_random_numbers_are_used_up",
    ),
    "tuning: the last trial wins": Mutant(
        "jobs/tune.py",
        "if sign * value > best_value:",
        "if True:",
        "jobs/test_tune.py::test_the_search_nears_the_best_settings",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_its_line_is_there_once(name: str) -> None:  # at once, where the next test would tell only after minutes
    mutant = MUTANTS[name]
    assert (ROOT / "src/lopsided" / mutant.file).read_text().count(mutant.right) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_is_killed(name: str, tmp_path: Path) -> None:
    mutant, package = MUTANTS[name], copy_package(tmp_path)
    text = (package / mutant.file).read_text()
    (package / mutant.file).write_text(text.replace(mutant.right, mutant.wrong))
    _, printed = run(package, ROOT, _run_killer, mutant.killer)
    assert "\n1 failed" in printed, f"{mutant.killer} does not see it:\n{printed[-2000:]}"


def _run_killer(killer: str) -> None:
    warnings.resetwarnings()  # pytest has its own filters
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take long to import, and nothing needs them
    pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"tests/{killer}"])
