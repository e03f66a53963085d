// The address of a view, #section?choice=value&…, so that a link shows what its sender saw.
const asked = {}; // what was chosen, by name: of a figure, of the cells, of the outputs, and the model
let place = ""; // the section

function recall() {
  const [section, choices = ""] = location.hash.slice(1).split("?");
  place = /^[\w-]+$/.test(section) ? section : "";
  for (const [name, value] of new URLSearchParams(choices)) asked[name] = value;
  for (const name of Object.keys(FIGURES)) if (name in asked) state[name] = asked[name];
}

const address = () => "#" + place + (Object.keys(asked).length ? "?" + new URLSearchParams(asked) : "");

// value: null where the choice is as the page came.
function remember(name, value, section) {
  if (value === null) delete asked[name]; else asked[name] = String(value);
  place = section;
  showAddress();
}

function showAddress() {
  try {
    history.replaceState(null, "", address());
  } catch {
    // a page inside another one has no address of its own
  }
}

function forgetChoices() {
  for (const name of Object.keys(asked)) if (name !== "models") delete asked[name];
}

// The choice among these values: what was chosen, where it is one of them, else the first.
function chosenOf(name, values, first = values[0]) {
  if (!values.includes(state[name])) state[name] = first;
  return state[name];
}

const inSight = () => [...document.querySelectorAll("section[id]")].filter((s) => s.getBoundingClientRect().top < 150).map((s) => s.id).pop();

// By the reader, who is not to be moved then. Outputs that unpack above a section push it away, so it is shown once more.
let moved = false;
for (const kind of ["wheel", "touchmove", "keydown"]) addEventListener(kind, () => { moved = true; }, { passive: true });

function showPlace() {
  const section = place && document.getElementById(place);
  if (section && !moved) section.scrollIntoView();
}

addEventListener("hashchange", () => {
  if (location.hash.includes("?") && location.hash !== address()) return location.reload();
  place = location.hash.slice(1).split("?")[0];
  moved = false;
  showAddress();
});
document.getElementById("link").addEventListener("click", (e) => {
  place = inSight() || "";
  showAddress();
  copy(location.href, e.target);
});
