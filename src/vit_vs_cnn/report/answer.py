"""The answer in words: who is better, at what cost, and what weakens that answer."""

from collections.abc import Mapping, Sequence

from vit_vs_cnn.config.schema import Settings
from vit_vs_cnn.core.console import points, two_digits
from vit_vs_cnn.data.checks import Checks, Kind
from vit_vs_cnn.data.notes import UNBALANCED
from vit_vs_cnn.evaluation.clusters import FEWEST_GROUPS
from vit_vs_cnn.evaluation.contestants import Contestant
from vit_vs_cnn.evaluation.pairs import PairedComparison
from vit_vs_cnn.report.comparison import Comparison, with_views
from vit_vs_cnn.tuning.summary import TuningSummary

# Contestants that differ by more in pretraining or size are not compared by their architecture alone.
_SAME_CONDITIONS = 2.0


def answer(comparison: Comparison) -> str:
    """Who is better by more than chance, at what cost, and what beside architecture differs."""
    best = comparison.best
    others = sorted((other for other in comparison.contestants if other is not best), key=lambda other: -other.accuracy)
    small = _smallest_class_sentence([best, *others])
    if not others:
        alone = f"{best.name} {_scores(best, others)}; there is no other contestant to compare it with."
        return " ".join(filter(None, [alone, small]))
    sentences = [
        _winner_of_two(comparison, best, others[0]) if len(others) == 1 else _winner(comparison, best, others),
        small,
        _cost_sentence(best, others),
        conditions_sentence(
            {one.name: one.chosen.summary.pretraining_images for one in comparison.contestants},
            {one.name: one.chosen.summary.parameters for one in comparison.contestants},
        ),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def weaknesses(
    comparison: Comparison, settings: Settings, searches: Mapping[str, TuningSummary], checks: Checks
) -> list[str]:
    """What could change the answer, by rule, a sentence for each weakness.

    `searches` are the contestants' tunings, `checks` those of the prepared data.
    """
    names = [contestant.name for contestant in comparison.contestants]
    untuned = [name for name in names if not searches[name].trials]
    rising = [
        contestant.name
        for contestant in comparison.contestants
        if any(replicate.summary.still_rising for replicate in contestant.replicates)
    ]
    sentences = [
        f"A training of {contestant.name} collapsed: it predicts one class for nearly all images. Its result says "
        "nothing of the architecture; try a tenth of its learning rate."
        for contestant in comparison.contestants
        if any(replicate.summary.collapsed for replicate in contestant.replicates)
    ]
    if len(settings.seeds) == 1:
        sentences.append(
            "One training of each: another seed gives other numbers, and perhaps another order. "
            "seeds: [0, 1, 2] trains each three times and counts that in."
        )
    sentences += untuned_sentences(untuned)
    sentences += [
        f"The best trial of {name} lies at the edge of its range in {', '.join(searches[name].at_edge)}: a wider range "
        "may hold a better one."
        for name in names
        if searches[name].at_edge
    ]
    if rising:
        sentences.append(
            f"Validation was still rising in the last epoch of {listed(rising)}: more epochs may change the answer."
        )
    return sentences + dependent_images(checks.counts) + too_few_images(comparison.pairs)


def untuned_sentences(names: Sequence[str]) -> list[str]:
    """That these contestants were not tuned, a sentence; none without any."""
    if not names:
        return []
    return [f"The recipe of {listed(names)} was not tuned (tune.trials: 0): these images may have a better one."]


def validation_sentence(comparison: Comparison) -> str | None:
    """Who was ahead on validation, by which models are chosen, and whether test confirms it; None of one alone."""
    if len(comparison.contestants) == 1:
        return None
    select_by = comparison.contestants[0].chosen.summary.select_by
    ahead = max(comparison.contestants, key=lambda contestant: contestant.val_score(select_by))
    beaten = comparison.beaten_by(ahead)
    unbeaten = [other.name for other in comparison.contestants if other is not ahead and other.name not in beaten]
    score = ahead.val_score(select_by)
    shown = f"a loss of {-score:.3f}" if select_by == "nll" else f"{points(score)} %"
    metric = "" if select_by in ("accuracy", "nll") else f" {select_by.replace('_', ' ')}"
    fit = " of its first fit" if ahead.chosen.summary.refit else ""
    lead = f"On validation {ahead.name} was ahead with {shown}{metric}{fit}"
    if not unbeaten:
        return f"{lead}, and test bears it out."
    return f"{lead}; the test images do not show that it is better than {listed(unbeaten, 'or')}."


def duplicates_sentence(comparison: Comparison) -> str | None:
    """How accurate they are without the test images that train has too; None where there are none."""
    metrics = comparison.contestants[0].chosen.evaluation.metrics
    if not metrics.duplicates_in_train:
        return None
    count = f"{metrics.duplicates_in_train:,} of the {metrics.images:,} test images"
    without = [
        f"{contestant.name} {points(contestant.mean_metrics['accuracy_without_duplicates'])} %"
        for contestant in comparison.contestants
        if "accuracy_without_duplicates" in contestant.mean_metrics
    ]
    if not without:
        return f"Train has an identical or nearly identical image of all {count}: none is left to measure without them."
    return f"Train has an identical or nearly identical image of {count}; right on the others: {', '.join(without)}."


def views_sentences(comparison: Comparison) -> list[str]:
    """What several views of each image change, a sentence for each contestant that was evaluated with them."""
    return [
        f"Averaged over {views.forwards} views of each image, at {views.forwards} times the time, "
        f"{contestant.name} is right on {points(views.accuracy)} % instead of {points(contestant.accuracy)} %: on "
        f"{views.gained:,.0f} images more and {views.lost:,.0f} fewer."
        for contestant in comparison.contestants
        if (views := with_views(contestant)) is not None
    ]


def listed(names: Sequence[str], conjunction: str = "and") -> str:
    """The names as a list in a sentence."""
    return f" {conjunction} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _scores(best: Contestant, others: Sequence[Contestant]) -> str:
    first = f"is right on {points(best.accuracy)} % of the test images"
    return ", ".join([first, *(f"{other.name} on {points(other.accuracy)} %" for other in others)])


def _trainings(contestant: Contestant) -> str:
    """How many trainings the answer is of, as the beginning of a sentence."""
    counts = len(contestant.replicates)
    return "In this one training of each" if counts == 1 else f"Over {counts} trainings of each"


def _winner_of_two(comparison: Comparison, best: Contestant, other: Contestant) -> str:
    pair, trainings = comparison.pair(best.name, other.name), _trainings(best)
    lead, low, high = _oriented(pair, best.name)
    by = f"{points(lead)} points ({points(low)} to {points(high)})"
    if pair.verdict == "better":
        return f"{trainings}, {best.name} is better by {by}: it {_scores(best, [other])}."
    if pair.verdict == "equal":
        within = f"within {100 * pair.margin:g} point{'' if pair.margin == 0.01 else 's'}"
        return (
            f"{trainings}, {best.name} and {other.name} are practically equal: {best.name} {_scores(best, [other])}, a "
            f"difference of {by}, all of it {within}."
        )
    return (
        f"{trainings}, no winner: {best.name} {_scores(best, [other])}, a difference of {by} that may be chance."
        + what_it_takes([pair])
    )


def _winner(comparison: Comparison, best: Contestant, others: Sequence[Contestant]) -> str:
    pairs, trainings = {other.name: comparison.pair(best.name, other.name) for other in others}, _trainings(best)
    if all(pair.verdict == "better" for pair in pairs.values()):
        leads = ", ".join(f"{name} by {points(_oriented(pair, best.name)[0])}" for name, pair in pairs.items())
        scores = f"{_scores(best, others)}, more than chance explains ({leads} points)"
        return f"{trainings}, {best.name} is the best: it {scores}."
    verdicts = {name: pair.verdict for name, pair in pairs.items()}
    lead = f"{trainings}, {best.name} {_scores(best, others)}. It is {relations_of(verdicts)}."
    return lead + what_it_takes([pair for pair in pairs.values() if pair.verdict == "undecided"])


def relations_of(verdicts: Mapping[str, str]) -> str:
    """What the one that is ahead is to the others, by the verdict on it and each of them."""
    relations = {
        "better": "better than {} by more than chance",
        "equal": "practically equal to {}",
        "undecided": "not shown to be better than {}",
    }
    names = {verdict: [name for name, found in verdicts.items() if found == verdict] for verdict in relations}
    return listed([text.format(listed(names[verdict])) for verdict, text in relations.items() if names[verdict]])


def _oriented(pair: PairedComparison, first: str) -> tuple[float, float, float]:
    """The difference and its interval, `first` minus the other."""
    if pair.first == first:
        return pair.difference, pair.low, pair.high
    return -pair.difference, -pair.high, -pair.low


def what_it_takes(undecided: Sequence[PairedComparison]) -> str:
    """How an open question could be settled, if the differences stay as they are, as a further sentence."""
    seeds = [pair.seeds_needed for pair in undecided]
    both = [pair.images_needed for pair in undecided if pair.needs_both and pair.images_needed is not None]
    if undecided and all(seeds):
        on = f" on about {two_digits(max(both))} such test images" if both else ""
        needed = f"About {max(filter(None, seeds))} trainings of each{on}"
        return f" {needed} would settle it, if the difference stays as it is."
    images = max((pair.images_needed for pair in undecided if pair.images_needed is not None), default=None)
    if images is None:
        return ""
    needed = f"about {two_digits(images)} such test images would"
    if undecided[0].training_share is None:
        return f" For these trainings {needed} settle it."
    return f" More trainings alone would not settle it: {needed}, if the difference stays as it is."


def dependent_images(counts: Mapping[Kind, int]) -> list[str]:
    """Where test images may belong to persons, places or videos that train has too, a sentence."""
    leaked, possible = counts.get("group_leakage", 0), counts.get("possible_group", 0)
    if leaked:
        return [
            f"Train and test share groups ({leaked:,} are in several splits): all may be less accurate on new ones."
        ]
    if possible:
        return [
            f"File names look as if they held {possible:,} groups, and data.groups is not set: if these are persons, "
            "places or videos, test has some that train has too, so that accuracies are too high and intervals too "
            "narrow for new ones."
        ]
    return []


def too_few_images(pairs: Sequence[PairedComparison]) -> list[str]:
    """Where test has few groups, or the choice of its images by itself leaves a pair of these trainings open."""
    few = {pair.groups for pair in pairs if (pair.groups or FEWEST_GROUPS) < FEWEST_GROUPS}
    sentences = [f"Test has few groups ({groups}): fewer than {FEWEST_GROUPS} say little of others." for groups in few]
    open_pairs = [pair for pair in pairs if pair.verdict == "undecided"]
    if open_pairs and (reach := max(pair.image_reach for pair in open_pairs)) > open_pairs[0].margin:
        sentences.append(
            f"{open_pairs[0].images:,} test images are few: of these trainings, a difference below about "
            f"{points(reach)} points may be chance, and from {100 * open_pairs[0].margin:g} on it would count as one "
            "(compare.margin)."
        )
    return sentences


def _smallest_class_sentence(contestants: Sequence[Contestant]) -> str | None:
    """The recall of the smallest class; None where the classes of test are balanced."""
    tables = {contestant.name: contestant.per_class.query("images > 0") for contestant in contestants}
    images = tables[contestants[0].name]["images"].to_numpy()
    smallest = int(images.argmin())
    if images.max() <= UNBALANCED * images[smallest]:
        return None
    recalls = ", ".join(f"{name} {points(table['recall'].iloc[smallest])} %" for name, table in tables.items())
    name = tables[contestants[0].name]["class"].iloc[smallest]
    return f"Recall of {name}, the smallest class with {images[smallest]:,} test images: {recalls}."


def _cost_sentence(best: Contestant, others: Sequence[Contestant]) -> str:
    """The time of an epoch: of two the slower one's beside the other's, of more the best one's beside each."""
    of = best if len(others) > 1 else max(best, *others, key=lambda contestant: contestant.seconds_per_epoch)
    beside = [one for one in [best, *others] if one is not of]
    times = [f"{of.seconds_per_epoch / one.seconds_per_epoch:.1f} times as long as one of {one.name}" for one in beside]
    if all(time.startswith("1.0 ") for time in times):
        return "Their epochs take about the same time."
    return f"An epoch of {of.name} takes {listed(times)}."


def conditions_sentence(seen_before: Mapping[str, int | None], sizes: Mapping[str, int]) -> str | None:
    """What contestants differ in by more than a factor of two beside architecture; None where they do not.

    `seen_before` are the images of their pretraining, None where unknown, `sizes` their parameters.
    """
    differences = [
        f"{subject} ({', '.join(f'{name} {_rounded(count)}' for name, count in extremes.items())}{unit})"
        for subject, unit, extremes in (
            ("pretraining data", " images", _extremes(seen_before)),
            ("size", " parameters", _extremes(sizes)),
        )
        if extremes
    ]
    return f"They differ in {' and '.join(differences)}, so this is not architecture alone." if differences else None


def _extremes(counts: Mapping[str, int | None]) -> dict[str, int | None]:
    """The contestants of the largest and the smallest count where these differ too much, else none.

    None is an unknown count, which differs from every known one.
    """
    known = {name: count for name, count in counts.items() if count is not None}
    if not known:
        return {}
    unknown = next((name for name, count in counts.items() if count is None), None)
    largest, smallest = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    if known[largest] > _SAME_CONDITIONS * known[smallest]:
        return {largest: known[largest], smallest: known[smallest]}
    return {} if unknown is None else {unknown: None, largest: known[largest]}


def _rounded(count: int | None) -> str:
    """A count with two digits: 14M, 1.3M, 410k; "unknown" of None, "no" of 0."""
    if not count:
        return "unknown" if count is None else "no"
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= 0.95 * unit:
            return f"{count / unit:.{0 if count >= 9.95 * unit else 1}f}{letter}"
    return str(count)
