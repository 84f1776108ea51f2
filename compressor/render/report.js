const secondary = [...document.querySelectorAll("details.secondary")];
const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
if (matchMedia("(max-width: 40rem)").matches) {
  for (const part of secondary) part.open = wanted !== null && part.contains(wanted);
}
addEventListener("beforeprint", () => { for (const part of secondary) part.open = true; });
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const range = document.createRange();
    range.selectNodeContents(button.previousElementSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = document.execCommand("copy") ? "copied" : "press Ctrl+C";
  });
}
