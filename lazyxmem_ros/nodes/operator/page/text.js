// SPDX-License-Identifier: Apache-2.0
// Every word of the page. To translate it, translate this file (and `lang` in index.html).

export const text = {
  title: "Operator console",
  skip: "Skip to the picture",
  trackers: "Trackers",
  work: "Picture",
  requests: "Requests",
  objects: "Objects",
  recent: "Recent answers",
  noRequests: "Nobody needs help.",
  noObjects: "Nothing is followed yet.",
  noRecent: "None yet.",
  yourName: "Your name",
  theme: "Light or dark",
  help: "Keys",
  close: "Close",

  health: { camera: "Camera", tracker: "Tracker", corrector: "Correction" },
  healthStates: {
    present: "running",
    absent: "absent",
    inactive: "not active",
    waiting: "no picture",
    unknown: "unknown",
  },
  complaint: (words) => `The tracker says: ${words}`,
  rate: (rate) => `${rate.toFixed(rate < 9.95 ? 1 : 0)} pictures/s`,

  notices: {
    connecting: "Connecting to the console …",
    lost: "The connection to the console is lost. It is being restored; what you have begun is kept.",
    token:
      "This console is protected. Open the address with the token that was printed where it was started.",
    origin:
      "The console lets in no page of this address. Behind a proxy it needs the proxy's name in " +
      "allowed_hosts, and the Host header passed on.",
    full: "As many browsers are connected as may be (max_browsers). This one follows when another is closed.",
    version: "The console was updated. Reload this page.",
    noTracker: (name) => `The tracker ${name} is not there. Start it, or check the network.`,
    inactive: (name) => `The tracker ${name} is not active: it listens to no images.`,
    noCamera: (name) => `No picture comes from the robot ${name}: nobody publishes images.`,
    noPicture: (name) => `No picture has come from the robot ${name} for a while.`,
    fault: (name, why) => `The pictures of the robot ${name} cannot be shown: ${why}`,
    noCorrector:
      "The correction service is not there: clicks and boxes make no mask. Painting works.",
    quiet: (seconds) => `Quiet: the tracker asks nothing for ${seconds} s more.`,
  },
  endQuiet: "Ask again",

  unnamed: (id) => `Object ${id}`,
  states: { tracked: "tracked", uncertain: "uncertain", lost: "lost", paused: "paused" },
  predictedIou: (iou) => (iou === null ? "quality unknown" : `quality ${Math.round(100 * iou)} %`),
  uncertainty: (value) => `uncertainty ${value === null ? "–" : value.toFixed(2)}`,
  curve: (name, value) =>
    `Uncertainty of ${name} over the last minute, now ${value === null ? "unknown" : value.toFixed(2)}`,
  secondsLeft: (left) => (left === null ? "no time limit" : `${Math.max(0, Math.ceil(left))} s left`),
  secondsLeftShort: (left) => (left === null ? "" : `${Math.max(0, Math.ceil(left))} s`),
  takenBy: (name) => `${name} is answering`,
  yours: "You are answering",
  secondsAgo: (s) => (s < 90 ? `${Math.round(s)} s ago` : `${Math.round(s / 60)} min ago`),

  headlines: {
    watching: "Watching",
    past: "The recent past",
    request: (name) => `Where is ${name}?`,
    add: "New object",
    correct: (name) => `Show where ${name} is`,
    none: "No picture yet",
  },
  /** What the tracker sees, as a sentence: "its edge is unclear: entropy 0.9 …" says it before the colon. */
  impression: (reason) => {
    const words = reason.split(":")[0].trim();
    if (!words) return "";
    return words[0].toUpperCase() + words.slice(1) + (/[.?!]$/.test(words) ? " " : ". ");
  },
  hints: {
    watching: (objects, requests) => {
      if (requests === 1) return "One request is open. Choose it in the list to answer it.";
      if (requests > 1) return `${requests} requests are open. Choose one in the list to answer it.`;
      return objects === 0
        ? "Nothing is followed yet. Show the tracker something: New object."
        : "Nobody needs help. Requests appear here by themselves.";
    },
    none: "It appears here by itself.",
    past: "New object shows one on this picture. Live goes back to now.",
    request: "Is it outlined in blue? Accept. If not, click on it.",
    requestNothing: "Click on it. Is it not there? Choose Not in view.",
    requestEdited: "Accept when the outline is right. Not object takes parts away.",
    correct: "Click on it or drag a box around it, then accept.",
    requestRefining: "Finding the outline …",
    add: "Click on the object or drag a box around it, then name it.",
    addEdited: "Is the outline right? Give it a name and press Enter.",
    accepting: "Accepting …",
    taken: (name) => `${name} is answering this request. The first answer counts.`,
  },
  badges: {
    live: "Live",
    ago: (seconds) => `Picture of ${seconds.toFixed(1)} s ago`,
    now: "The newest picture",
    heat: "Uncertainty: bright where the tracker is unsure",
    untracked: "Not tracked",
  },

  tools: {
    object: "Object",
    other: "Not object",
    box: "Box",
    paint: "Paint",
    erase: "Erase",
    undo: "Undo",
    heat: "Uncertainty",
    compare: "Compare",
    absent: "Not in view",
    quiet: "Quiet",
    dismiss: "Dismiss",
    cancel: "Cancel",
    accept: "Accept",
    add: "New object",
    live: "Live",
    brush: "Brush size",
  },
  quietFor: (s) => (s % 60 ? `Quiet ${s} s` : `Quiet ${s / 60} min`),
  toolsLabel: "Tools",
  portrait: "Looks like this",
  portraitOf: (name) => `What ${name} looked like when the tracker was surest of it`,
  stageLabel: "Picture of the camera. With the arrow keys the crosshair moves, A marks the object.",
  name: "Name",
  namePlaceholder: "for example: cup",
  scrubber: "Recent past",
  scrubberBack: "One picture back",
  scrubberForth: "One picture forth",
  scrubberValue: (seconds) => (seconds < 0.05 ? "now" : `${seconds.toFixed(1)} seconds ago`),

  actions: {
    pause: "Pause",
    resume: "Resume",
    find: "Show again",
    remove: "Remove",
    reallyRemove: "Really remove?",
    ofObject: (action, name) => `${action}: ${name}`,
    takeBack: "Take back",
  },

  outcomes: {
    sent: "sent",
    applied: "applied",
    refused: "refused",
    dismissed: "dismissed",
    expired: "nobody answered in time",
    withdrawn: "not asked any more",
    elsewhere: "answered by another program",
    taken_back: "taken back",
    quiet: "declined: quiet",
  },

  toasts: {
    applied: (name) => `${name}: the tracker took your answer.`,
    refusedByTracker: (name, why) => `${name}: the tracker refused the answer. ${why}`,
    mask: "Answer sent.",
    not_in_view: "Told the tracker that it is not in view.",
    dismissed: "Request dismissed.",
    corrected: "Shown to the tracker.",
    added: "The tracker follows a new object.",
    removed: "Removed.",
    paused: "Paused.",
    resumed: "Goes on.",
    taken_back: "Taken back, as if it had never been given.",
    quiet: "The tracker asks nothing for a while.",
    quiet_ended: "The tracker may ask again.",
  },
  faults: {
    first_sent: (by) => `${by} answered first.`,
    first_applied: (by) => `${by} answered first.`,
    first_refused: (by) => `${by} answered first; the tracker refused that answer.`,
    first_dismissed: (by) => `${by} dismissed it first.`,
    first_expired: "Nobody answered in time. The tracker goes on without.",
    first_withdrawn: "The tracker does not ask any more.",
    first_elsewhere: "Another program answered first.",
    first_taken_back: (by) =>
      `${by || "Another program"} answered first; that answer was taken back.`,
    first_quiet: (by) => `${by || "Somebody"} asked for quiet: the request was declined.`,
    first_unknown: "The request is not known any more.",
    not_applied: "There is nothing to take back any more.",
    newer_answer: "Somebody has shown the object on that picture again since: take that back first.",
    not_open: "The request is not open any more.",
    no_mask: (detail) => `No outline was found. ${detail}`,
    bad_prompt: "Click on the object first.",
    broken_mask: (detail) => `The mask does not fit the picture. ${detail}`,
    empty_mask: "Mark the object first.",
    empty_answer: "Mark the object first. Is it not there? Choose Not in view.",
    forgotten_frame: "That picture is not kept any more. Take a newer one.",
    not_tracked: "The tracker has not seen that picture. Take another one.",
    no_object: "The tracker does not follow that object any more.",
    no_tracker: "The tracker is not there.",
    no_answer: "The tracker did not answer.",
    no_past: "No picture is kept yet.",
    refused: (detail) => `The tracker refused: ${detail}`,
    failed: (detail) => `The console failed: ${detail}`,
    too_many_masks: "Too many clicks at once.",
    too_many_points: "There are too many clicks. Undo some, draw a box, or paint.",
    too_large: "The mask is too large for the console (max_message_megabytes). Make it simpler.",
    unknown_tracker: "That tracker is not known.",
    broken_request: (detail) => `The request's picture is broken. ${detail}`,
    malformed: (detail) => `The console did not understand the page: ${detail}`,
  },
  /** What became of a request that somebody was about to answer. */
  verdict: (name, words) => `${name}: ${words}`,
  fault: (code, detail) => {
    const words = text.faults[code];
    if (words === undefined) return detail || code;
    return typeof words === "function" ? words(detail) : words;
  },

  announce: {
    request: (name, left) => `${name} needs help. ${left}.`,
    refined: (share) => `Outline found: ${share} percent of the picture.`,
    point: (positive) => (positive ? "Marked as object." : "Marked as not object."),
  },

  keys: {
    heading: "Keys",
    groups: { answer: "Answering", mark: "Marking", watch: "Watching", page: "Page" },
    rows: {
      accept: "Accept the outline",
      dismiss: "Dismiss the request, or cancel",
      absent: "The object is not in view",
      quiet: "Ask nothing for a while, or ask again",
      next: "Next request",
      numbered: "Open request 1 to 9",
      object: "Mark the object at the crosshair (left mouse button)",
      other: "Mark what is not the object (right mouse button)",
      box: "First, then second corner of a box at the crosshair (drag with the mouse)",
      paint: "Paint",
      erase: "Erase",
      brush: "Smaller or larger brush",
      arrows: "Move the crosshair; with Shift faster",
      zoom: "Zoom in or out (mouse wheel, two fingers)",
      undo: "Undo",
      heat: "Hold: where the tracker is unsure",
      compare: "Hold: compare with the newest picture",
      add: "New object on this picture",
      step: "One picture back or forth in the recent past",
      live: "Back to now",
      tracker: "Next tracker",
      theme: "Light or dark",
      help: "These keys",
    },
  },
};
