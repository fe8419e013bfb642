"""The page's parts and where they stand; what they do is in events.py.

blocks = page(Talk(history, flow), settings)
"""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from flows.page import model_card
from flows.page.conversation import DEFAULT_TOKENS, TOKENS
from flows.page.settings import Settings

TITLE = "phikit chat"
EXAMPLES = ("Who founded Microsoft?", "When was Microsoft founded?", "Where is Microsoft's headquarters?")
COMPARE = "Compare with the base model"
NO_BASE = "Needs the base model's address: set PHIKIT_BASE_ENDPOINT_URI for the flow, and PHIKIT_CHAT_COMPARE=1 here."


@dataclass(frozen=True)
class Parts:
    """The page's components, by what they are for."""

    card: gr.HTML
    conversation: gr.Textbox
    pages: gr.State
    new: gr.Button
    search: gr.Textbox
    listing: gr.Radio
    nothing: gr.HTML
    more: gr.Button
    title: gr.Textbox
    delete: gr.Button
    theme: gr.Button
    chat: gr.Chatbot
    base: gr.Chatbot
    base_column: gr.Column
    choice: gr.Row
    better_tuned: gr.Button
    better_base: gr.Button
    alert: gr.HTML
    again: gr.Button
    message: gr.Textbox
    sent: gr.Textbox
    system: gr.Textbox
    temperature: gr.Slider
    tokens: gr.Slider
    compare: gr.Checkbox
    formatted: gr.Checkbox

    @property
    def options(self) -> list[gr.components.Component]:
        """What says how to answer, in the order of conversation.Options."""
        return [self.system, self.temperature, self.tokens, self.compare]


def page(settings: Settings) -> tuple[gr.Blocks, Parts]:
    """The page, on which nothing happens yet."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_height=True, fill_width=True) as blocks:
        # (in the browser, for the address names it; whose it is, the store checks)
        conversation, pages = gr.Textbox("", visible="hidden", elem_id="conversation"), gr.State(1)
        with gr.Sidebar(label="Conversations", width=300, elem_id="side"):
            new = gr.Button("New chat", variant="primary", elem_id="new")
            search = gr.Textbox(
                show_label=False, placeholder="Search", container=False, max_lines=1, elem_id="search", type="text"
            )
            listing = gr.Radio([], label="Conversations", show_label=False, container=False, elem_id="listing")
            nothing = gr.HTML("", elem_id="nothing", padding=False)
            more = gr.Button("Show more", size="sm", visible=False, elem_id="more")
            with gr.Accordion("This conversation", open=False, elem_id="this"):
                title = gr.Textbox(label="Title (Enter renames)", max_lines=1, elem_id="title")
                delete = gr.Button("Delete", size="sm", variant="stop", elem_id="delete")
            gr.HTML(
                '<p class="exports">Export: <a href="export/chats.jsonl">chats</a> · '
                '<a href="export/preferences.jsonl">preferences</a></p>'
            )
            theme = gr.Button("Light or dark", size="sm", elem_id="theme")
        card = gr.HTML(model_card.as_html(model_card.read(settings.run)), elem_id="card", padding=False)
        with gr.Row(elem_id="columns"):
            with gr.Column(min_width=280):
                chat = _column("Fine-tuned model", "chat", editable="user", feedback=("Like", "Dislike"))
            with gr.Column(min_width=280, visible=False) as base_column:
                base = _column("Base model", "base", editable=None, feedback=None)
        with gr.Row(visible=False, elem_id="choice") as choice:
            better_tuned = gr.Button("The fine-tuned answer is better", size="sm", elem_id="better-tuned")
            better_base = gr.Button("The base answer is better", size="sm", elem_id="better-base")
        alert = gr.HTML("", elem_id="alert", padding=False)
        again = gr.Button("Try again", size="sm", visible=False, elem_id="again")
        message = gr.Textbox(
            show_label=False,
            label="Message",
            placeholder="Ask something; Enter sends, Shift+Enter begins a new line, Escape stops the answer",
            lines=1,
            max_lines=8,
            container=False,
            autofocus=True,
            submit_btn=True,
            elem_id="message",
        )
        # (in the browser: what has left the message's box, which is empty at once)
        sent = gr.Textbox("", visible="hidden", elem_id="sent")
        with gr.Accordion("How to answer", open=False, elem_id="settings"):
            with gr.Row():
                temperature = gr.Slider(
                    0, 2, value=0, step=0.1, label="Temperature (0: always the likeliest word)", elem_id="temperature"
                )
                tokens = gr.Slider(
                    *TOKENS, value=DEFAULT_TOKENS, step=1, label="Length (tokens at most)", elem_id="tokens"
                )
            system = gr.Textbox(label="System prompt", lines=2, max_lines=8, elem_id="system")
            with gr.Row():
                compare = gr.Checkbox(
                    label=COMPARE,
                    info=None if settings.compare else NO_BASE,
                    interactive=settings.compare,
                    elem_id="compare",
                )
                formatted = gr.Checkbox(
                    label="Show Markdown formatted", info="Off: every message as the text it is.", elem_id="formatted"
                )
        parts = {name: part for name, part in locals().items() if name in Parts.__dataclass_fields__}
    return blocks, Parts(**parts)


def _column(label: str, name: str, editable: str | None, feedback: tuple[str, ...] | None) -> gr.Chatbot:
    """One column of messages, as plain text until somebody wants them formatted."""
    return gr.Chatbot(
        label=label,
        show_label=name == "base",
        elem_id=name,
        height="100%",
        editable=editable,
        buttons=["copy"],
        sanitize_html=True,
        render_markdown=False,
        allow_tags=False,
        latex_delimiters=[],
        feedback_options=feedback,
        group_consecutive_messages=False,
        allow_file_downloads=False,
        placeholder="Ask the model that you trained.",
        examples=[{"text": text} for text in EXAMPLES] if editable else None,
    )
