const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);

// Text is only ever set as text: what a file calls its models and nodes is never read as markup.
function make(tag, options = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") made.textContent = value;
    else if (key === "on") for (const [event, does] of Object.entries(value)) made.addEventListener(event, does);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...inside);
  return made;
}

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// A count in full, six digits of any other number, as in the tables of the command line.
function shown(value) {
  if (value === null) return "";
  if (typeof value === "string") return value;
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return grouped.format(value);
  const text = value.toPrecision(6);
  return text.includes("e") ? Number(text).toExponential() : String(Number(text));
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Paper is white, whatever the screen is.
function onPrint(before, after) {
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    before();
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.theme;
    after();
  });
}
