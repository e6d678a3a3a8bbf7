"""Follow a target through a video in the browser.

    python examples/space/app.py

opens the page on this machine; README.md beside this file says how it becomes a Space. `CT_HF_TRACKERS` names the trackers
to choose from, folders or Hub repositories with commas between.
"""

import os
import signal
from collections.abc import Iterator
from functools import partial
from html import escape
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from following import MAX_FRAMES, MAX_SECONDS, Followed, follow_target
from score_curve import plot_scores
from trackers import load_tracker, offered_trackers
from videos import (
    MAX_SIDE,
    SAMPLE,
    box_between,
    box_text,
    draw_box,
    draw_corner,
    first_frame,
    parse_box,
    sample_video,
)

from ct_hf.evaluation.report import short_speed
from ct_hf.evaluation.theme import THEMES, inline_svg


_PROGRESS = gr.Progress()
_MOST_UPLOADED = 200  # MB of a video
_KEPT = 3600  # seconds that files of a visitor are kept

_TITLE = "Follow a target through a video"
_HEAD = f"""
# {_TITLE}
Give a transformer tracker one box in the first frame; it looks for the target in every frame that follows. ct_hf makes such
trackers smaller, by [CompressTracker](https://huggingface.co/papers/2409.17564).
"""
_WAITING = '<div class="waiting">The tracked video appears here.</div>'
_CLICK = "Click two opposite corners of the target, or type the box."
_OTHER = "Now the opposite corner."


def _problem(error: Exception) -> gr.Error:
    return gr.Error(escape(str(error)), duration=None, print_exception=False)


def show_video(path: str | None) -> Iterator[tuple[Any, Any, str, None, str]]:
    """First frame, no box, no corner, and what to do next; nothing is left of the video before."""
    yield gr.update(visible=False), None, "", None, ""
    if path is not None:
        try:
            yield gr.update(visible=True), first_frame(path), "", None, _CLICK
        except ValueError as error:
            raise _problem(error) from error


def show_sample() -> tuple[str, Any, Any, str, None, str]:
    """The rendered sample with the box that its target has in the first frame."""
    path = str(sample_video())
    text = box_text(SAMPLE.boxes[0])
    picture, corner, hint = show_box(path, text)
    return path, gr.update(visible=True), picture, text, corner, hint


def click_corner(
    path: str | None, corner: tuple[int, int] | None, event: gr.SelectData
) -> tuple[Any, str, tuple[int, int] | None, str]:
    """Take a first corner, or complete the box with the second."""
    try:
        frame = first_frame(path)
        clicked = tuple(event.index)
        if corner is None:
            return draw_corner(frame, clicked), "", clicked, _OTHER
        box = box_between(corner, clicked)
        return draw_box(frame, box), box_text(box), None, _box_hint(box)
    except ValueError as error:
        raise _problem(error) from error


def show_box(path: str | None, text: str) -> tuple[Any, Any, Any]:
    """Show the box that is written; what is wrong with it stands below, since the next key may mend it."""
    if path is None or not text.strip():
        return gr.skip(), gr.skip(), gr.skip()
    try:
        frame = first_frame(path)
    except ValueError as error:
        raise _problem(error) from error
    try:
        box = parse_box(text, frame)
    except ValueError as error:
        return frame, None, str(error)
    return draw_box(frame, box), None, _box_hint(box)


def _box_hint(box: list[float]) -> str:
    return f"{box[2]:g} × {box[3]:g} pixels. Click two corners to draw another."


def track(path: str | None, text: str, tracker: str, progress: gr.Progress = _PROGRESS) -> Iterator[tuple[Any, ...]]:
    """Follow the target; the files are Gradio's after the last `yield`, so those of this function can go."""
    yield gr.update(visible=True), gr.update(visible=False), None, "", None, None
    try:
        frame = first_frame(path)
        box = parse_box(text, frame)
        progress(0, desc=f"loading {tracker}")
        model = load_tracker(tracker)
        with TemporaryDirectory(prefix="ct_hf-space-") as folder:
            followed = follow_target(model, path, box, folder, partial(_tell, progress))
            drawn, boxes, table = map(str, (followed.video, *followed.tables))
            yield gr.update(visible=False), gr.update(visible=True), drawn, _summary(tracker, followed), boxes, table
    except (ValueError, OSError) as error:
        raise _problem(error) from error


def _tell(progress: gr.Progress, done: int, total: int | None) -> None:
    progress(done / (total or MAX_FRAMES), desc=f"frame {done} of {total or f'at most {MAX_FRAMES}'}")


def _summary(tracker: str, followed: Followed) -> str:
    """Speed, losses and curve as HTML."""
    count, lost = len(followed.scores), sum(followed.lost)
    rows = []
    if followed.ended:
        rows.append(f'<p class="ended">{escape(followed.ended)}</p>')
    if followed.speed:
        rows.append(
            f'<p><b class="speed">{short_speed(followed.speed.fps)}</b> frames a second by {escape(tracker)}<br>'
            f"<small>{escape(followed.speed.conditions)}</small></p>"
        )
    found = f"lost in {lost} of them" if lost else "never lost"
    rows.append(
        f"<p>{count} frames, the target {found}. {followed.seconds:.1f} s in all, with reading, drawing and writing the "
        "video.</p>"
    )
    if count > 1:
        description = f"Score of the target in {count - 1} frames; it was {found}."
        rows.append(inline_svg(plot_scores(followed.scores, followed.lost), "scores", description))
    return "".join(rows)


def _style() -> str:
    """
    Style sheet. The curve takes its colours from the theme of the page; Gradio's buttons for cutting videos are not there,
    since they would fetch an encoder from elsewhere.
    """
    light, dark = (
        " ".join(f"--{name}: {color};" for name, color in THEMES[name].variables().items())
        for name in ("light", "dark")
    )
    return f"""
.summary {{ {light} }}
.dark .summary {{ {dark} }}
.html-container {{ padding: 0 !important; }}
#video button[aria-label^="Trim"], #video button[aria-label^="Reset"] {{ display: none; }}
.summary p {{ margin: 0 0 .6rem; }}
.waiting {{ display: grid; min-height: 14rem; place-items: center; border: 1px dashed var(--border-color-primary);
  color: var(--body-text-color-subdued); }}
.summary .speed {{ font-size: 1.6rem; }}
.summary .ended {{ border-left: 4px solid var(--tracker-5); padding-left: .6rem; }}
.summary svg {{ display: block; width: 100%; max-width: 44rem; height: auto; }}
.summary svg text {{ font-family: inherit !important; }}
"""


def _limits() -> str:
    """What the page does not do, and what its trackers are not."""
    text = (
        f"The first {MAX_FRAMES} frames are tracked (20 s at 30 a second), for at most {MAX_SECONDS:.0f} s; frames have up to "
        f"{MAX_SIDE} pixels a side, files {_MOST_UPLOADED} MB. Files are deleted after an hour."
    )
    if not os.environ.get("CT_HF_TRACKERS"):
        text += " `teacher` is the one that ships with ct_hf: small, and trained on rendered sequences alone."
    return text


def build_page() -> gr.Blocks:
    """The page, not yet served."""
    trackers = list(offered_trackers())
    with gr.Blocks(
        title="Follow anything through a video", analytics_enabled=False, delete_cache=(600, _KEPT)
    ) as page:
        corner = gr.State()
        gr.Markdown(_HEAD)
        with gr.Row():
            with gr.Column():
                video = gr.Video(label="Video", sources=["upload"], buttons=[], height=180, elem_id="video")
                sample = gr.Button("Use the rendered sample")
                # Shown and hidden as a whole: Gradio never deletes the files of a component that is itself updated.
                with gr.Column(visible=False) as first:
                    frame = gr.Image(
                        label="First frame", interactive=False, buttons=[], format="jpeg", elem_id="frame"
                    )
                    hint = gr.Markdown()
                box = gr.Textbox(label="Box", info="x, y, width, height in pixels of the first frame", max_lines=1)
                tracker = gr.Dropdown(
                    trackers,
                    value=trackers[0],
                    label="Tracker",
                    info="one of these, or type a Hub repository such as name/tracker",
                    allow_custom_value=True,
                )
                run = gr.Button("Track", variant="primary")
                gr.Markdown(_limits())
            with gr.Column():
                status = gr.HTML(_WAITING)
                with gr.Column(visible=False) as results:
                    drawn = gr.Video(
                        label="Tracked video", autoplay=True, loop=True, interactive=False, elem_id="tracked"
                    )
                    summary = gr.HTML(elem_classes="summary")
                    with gr.Row():
                        boxes = gr.DownloadButton("Boxes (.txt)", size="sm", min_width=120)
                        table = gr.DownloadButton("Boxes and scores (.csv)", size="sm", min_width=120)
        shown = [first, frame, box, corner, hint]
        quiet = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
        video.upload(show_video, video, shown, **quiet)
        video.clear(show_video, video, shown, **quiet)
        sample.click(show_sample, None, [video, *shown], api_visibility="private")
        frame.select(click_corner, [video, corner], [frame, box, corner, hint], **quiet)
        box.change(show_box, [video, box], [frame, corner, hint], **quiet)
        found = [status, results, drawn, summary, boxes, table]
        run.click(track, [video, box, tracker], found, show_progress_on=status, scroll_to_output=True)
    return page.queue(max_size=16)


def main() -> None:
    """Serve the page where `GRADIO_SERVER_NAME` and `GRADIO_SERVER_PORT` say, on this machine by default."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, which takes the files away
    sample_video()  # before anyone waits for it
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
    theme = gr.themes.Default(**fonts).set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300"
    )
    # Gradio leaves its files when it is stopped while somebody has the page open.
    with TemporaryDirectory(prefix="ct_hf-space-", ignore_cleanup_errors=True) as cache:
        os.environ.setdefault("GRADIO_TEMP_DIR", cache)
        build_page().launch(
            theme=theme,
            css=_style(),
            max_file_size=_MOST_UPLOADED * gr.FileSize.MB,
            show_error=True,  # what nobody foresaw is better seen than silent
            ssr_mode=False,
            footer_links=["api", "gradio"],
        )


if __name__ == "__main__":
    main()
