// What the chat page does in the browser by itself: Escape, asking before it deletes, light and dark, the address, and
// messages as they were written.

// Escape ends the answer that is coming
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("#message button.stop-button")?.click();
});

// a conversation goes for good only if its reader says so twice; a click that was not meant never leaves the browser
document.addEventListener(
  "click",
  (event) => {
    if (!event.target.closest?.("#delete") || confirm("Delete this conversation for good?")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  },
  true,
);

function phikitTheme(choice) {
  const kept = localStorage.getItem("phikit-theme");
  if (choice !== "toggle" && !kept) return;
  const dark = choice === "toggle" ? !document.body.classList.contains("dark") : kept === "dark";
  document.body.classList.toggle("dark", dark);
  localStorage.setItem("phikit-theme", dark ? "dark" : "light");
}

// where the panel would cover everything it begins closed
function phikitPhone() {
  if (matchMedia("(max-width: 768px)").matches) document.querySelector("#side.open > .toggle-button")?.click();
}

// the address names the conversation, so that a reload opens it again
function phikitAddress(conversation) {
  const query = new URLSearchParams(location.search);
  if ((query.get("conversation") ?? "") === conversation) return;
  if (conversation) query.set("conversation", conversation);
  else query.delete("conversation");
  history.replaceState(null, "", `${location.pathname}${query.size ? "?" : ""}${query}`);
}

// Messages come with < and & escaped (conversation.py): Gradio puts them on the page as HTML. Whoever copies or edits one
// gets what was written.
const written = (text) => text.replaceAll("&lt;", "<").replaceAll("&amp;", "&");

if (navigator.clipboard) {
  const write = navigator.clipboard.writeText.bind(navigator.clipboard);
  navigator.clipboard.writeText = (text) => write(written(text));
}

// What is sent leaves the box at once, before Gradio looks at it: what is typed on meanwhile is the next message. While
// an answer comes, nothing is sent.
let leaving = null;

function phikitLeave() {
  const box = document.querySelector("#message textarea");
  if (document.querySelector("#message .stop-button") || !box.value) return;
  leaving = box.value;
  box.value = "";
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

function phikitSend(text) {
  const sent = leaving ?? text;
  leaving = null;
  return sent;
}

document.addEventListener(
  "keydown",
  (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || !event.target.matches?.("#message textarea")) return;
    phikitLeave();
  },
  true,
);
document.addEventListener("click", (event) => event.target.closest?.("#message .submit-button") && phikitLeave(), true);

// In a message that is shown formatted, code has been escaped once more: there it is read as it was written.
function phikitCode(root) {
  for (const code of root.querySelectorAll?.("#chat code:not([data-written]), #base code:not([data-written])") ?? []) {
    code.dataset.written = "";
    if (code.textContent !== written(code.textContent)) code.textContent = written(code.textContent);
  }
}

// Gradio's two buttons in the message's box are pictures without a name
const names = { "submit-button": "Send", "stop-button": "Stop" };

new MutationObserver((changes) => {
  for (const [kind, name] of Object.entries(names)) {
    document.querySelector(`#message button.${kind}:not([aria-label])`)?.setAttribute("aria-label", name);
  }
  phikitCode(document);
  for (const node of changes.flatMap((change) => [...change.addedNodes])) {
    const box = node.matches?.("textarea.edit-textarea") ? node : node.querySelector?.("textarea.edit-textarea");
    if (!box || box.value === written(box.value)) continue;
    box.value = written(box.value);
    box.dispatchEvent(new Event("input", { bubbles: true }));
  }
}).observe(document, { childList: true, subtree: true });
