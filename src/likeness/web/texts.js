// @ts-check
/** All texts of the app. */

/** @param {number} count @param {string} one @param {string} [many] */
const counted = (count, one, many) => `${count} ${count === 1 ? one : many || `${one}s`}`;

const person = {
  woman: "A woman",
  man: "A man",
  person: "A person",
  girl: "A girl",
  boy: "A boy",
};

export const t = {
  app: "Likeness",
  skip: "Skip to the content",
  loading: "Loading …",
  nav: {
    label: "Main",
    people: "People",
    add: "New",
    studio: "Studio",
    phone: "Phone",
    operator: "Operator",
    out: "Sign out",
  },
  actions: {
    close: "Close",
    delete: "Delete",
    download: "Download",
    again: "Try again",
    more: "More options",
    keep: "Keep",
  },
  gone: "The server does not answer. This page continues as soon as it is back.",
  requestId: "Request",

  welcome: {
    title: "Portraits of you from ten photographs",
    lead: "Take ten good photographs, wait a few minutes, and see yourself anywhere: in the mountains, in space, in oil on canvas.",
    start: "Start with my photographs",
    example: "Try it with our example person",
    exampleNote: "He does not exist: his photographs are rendered. You need no photographs of your own.",
    steps: [
      ["Ten photographs", "Each is checked at once: whether it is good, why, and what to take next."],
      ["A few minutes", "An adapter learns the face. You can close the page meanwhile."],
      ["Any picture", "Describe the place and the style. Every picture is marked as AI-generated."],
    ],
    private: "Everything stays on this machine. Nothing is sent anywhere, and you can delete all of it at any time.",
    people: "Go on with",
    alt: /** @param {string} what */ (what) => `Example: ${what}`,
  },

  consent: {
    title: "Whose face is it?",
    lead: "Only use photographs of somebody who has agreed.",
    name: "Name",
    nameHint: "Letters, digits, - and _; for example anna",
    nameError: "Use a to z, digits, - and _, beginning with a letter or digit.",
    noun: "Who is in the photographs?",
    nouns: person,
    other: "Something else: a pet, an object",
    otherNoun: "What is it?",
    otherHint: "One or two words, for example dog or teapot",
    whose: "Who agrees?",
    me: "It is me, and I agree",
    them: "Somebody else, who has agreed",
    who: "Who agreed, when and how?",
    whoHint: "For example: Anna Berg, in writing, on 1 March",
    facts: [
      ["What for", "To train an adapter that makes portraits of this person, for whoever uses this installation."],
      [
        "How long",
        /** @param {number} days */ (days) =>
          days === 0
            ? "The photographs are deleted as soon as the training is over."
            : `The photographs are deleted ${counted(days, "day")} after the training. Without a training they stay until you delete them.`,
      ],
      ["Where", "On this machine. Nothing leaves it."],
      ["Deletion", "You can delete everything at any time. You get a receipt."],
    ],
    agree: "I have read this, and the person in the photographs agrees.",
    agreeError: "Tick this box to go on.",
    submit: "Agree and go on",
    words: /** @param {boolean} isMe @param {string} who */ (isMe, who) =>
      `${isMe ? "The person in the photographs agreed in the web app, for themselves." : `Agreed: ${who}.`} ` +
      "Purpose: an adapter that makes portraits of this person. Storage on this installation only, until deleted.",
    exampleWords: "A virtual person, who does not exist: nobody's consent is needed.",
  },

  photos: {
    title: /** @param {string} name */ (name) => `Photographs of ${name}`,
    lead: "Ten or more, in different places, light and clothes. Good photographs matter more than anything else.",
    drop: "Drop photographs here, paste them, or",
    choose: "Choose photographs",
    folder: "A folder",
    selfie: "Take one with the phone",
    camera: "Live camera with a coach",
    zip: "A zip works too. HEIC, JPEG, PNG and WebP are read; location and other metadata are removed.",
    states: {
      waiting: "Waiting",
      sending: "Checking …",
      accepted: "Good",
      warned: "Usable",
      refused: "Refused",
      failed: "Not sent",
    },
    usable: /** @param {number} count */ (count) => counted(count, "usable photograph"),
    progress: /** @param {number} done @param {number} all */ (done, all) => `${done} of ${all} checked`,
    remove: /** @param {string} file */ (file) => `Remove ${file}`,
    removed: "The photograph is deleted.",
    crop: "What training sees",
    cropAlt: "The crops that training uses; in the lower row, the background is dimmed",
    stranger: "Keep it anyway",
    train: "Start the training",
    tooFew: "Four usable photographs are needed, ten are better.",
    advice: "What would help",
    good: "This set is complete. More photographs would hardly help.",
    replace: "There is a trained adapter of this name already. The new training replaces it.",
    recipe: "Recipe",
    recipes: {
      fast: "Fast: a first look, a third of the time",
      standard: "Standard",
      thorough: "Thorough: nearly three times as long",
      "origin-2023": "Origin 2023: the settings of the reference solution",
    },
    classNoun: "Class noun",
    nounHint: "The word for people or things of this kind, such as man or dog. The base must know it.",
    steps: "Steps",
    stepsHint: "Steps: as in the recipe if empty",
    classImages: "Class images",
    classHint: "Class images: images of other people, made once by the base; as in the recipe if empty",
    others: /** @param {Record<string, any>} changes */ (changes) =>
      `Other changes of the recipe, as before: ${Object.entries(changes)
        .map(([field, value]) => `${field} ${JSON.stringify(value)}`)
        .join(", ")}`,
    empty: "No photographs yet.",
  },

  plan: {
    title: "Plan of shots",
    next: "Take next",
    of: /** @param {number} have @param {number} wanted */ (have, wanted) => `${Math.min(have, wanted)} of ${wanted}`,
    names: {
      front: "From the front",
      three_quarter_left: "Half turned to your right",
      three_quarter_right: "Half turned to your left",
      profile_left: "Turned far to your right",
      profile_right: "Turned far to your left",
      up: "Looking up",
      down: "Looking down",
      smile: "Smiling",
      neutral: "Serious",
      open_mouth: "Mouth open",
      places: "Different places",
      lights: "Different light",
      outfits: "Different clothes",
    },
    hints: {
      front: "Look straight into the camera.",
      three_quarter_left: "Turn your head a little to your right.",
      three_quarter_right: "Turn your head a little to your left.",
      profile_left: "Turn your head far to your right.",
      profile_right: "Turn your head far to your left.",
      up: "Raise your chin.",
      down: "Lower your chin.",
      smile: "Smile, showing your teeth if you like.",
      neutral: "A relaxed, serious face.",
      open_mouth: "Open your mouth, as if you say ‘ah’.",
      places: "Go to another room, or outside.",
      lights: "Once by a window, once under a lamp.",
      outfits: "Put on something of another colour.",
    },
  },

  camera: {
    title: "Camera",
    starting: "Starting the camera …",
    wanted: "Now",
    taken: /** @param {number} count */ (count) => `${counted(count, "photograph")} so far`,
    shutter: "Take the photograph",
    retake: "Delete last",
    skip: "Another shot",
    stop: "Close the camera",
    countdown: "Hold it …",
    saved: "Taken. It is being checked.",
    notKept: /** @param {string} reason */ (reason) => `Not kept. ${reason}`,
    hints: {
      hold: "Hold it like this",
      late: "…",
      no_face: "Show your face",
      too_dark: "Too dark: turn to a window or a lamp",
      too_bright: "Too bright: turn away from the light",
      several_people: "Only one person, please",
      come_closer: "Come closer",
      go_back: "Go back a little",
      centre: "Move to the middle of the oval",
      turn_left: "Turn a little to your left",
      turn_right: "Turn a little to your right",
      look_up: "Raise your chin",
      look_down: "Lower your chin",
      look_level: "Hold your head level",
      smile: "Now smile",
      neutral: "Now look serious",
      open_mouth: "Open your mouth",
      hold_still: "Hold still",
    },
    errors: {
      insecure:
        "Browsers allow the camera only over https, and on this machine itself. Use files, or open the server over https: likeness serve --host 0.0.0.0 --certificate chain.pem --key key.pem, or a proxy with TLS.",
      NotAllowedError:
        "The browser does not allow this page to use the camera. Allow it in the address bar, or use files.",
      NotFoundError: "This machine has no camera. Use files.",
      NotReadableError: "Another program uses the camera. Close it and try again, or use files.",
      webview:
        "The browser inside another app does not pass the camera on. Open this page in your own browser, or use files.",
      other: "The camera could not be started. Use files.",
    },
  },

  training: {
    title: /** @param {string} name */ (name) => `Training of ${name}`,
    gone: "There is no such training.",
    close: "You can close this page: the training goes on, and this address shows it again.",
    states: {
      queued: "Waiting",
      running: "Running",
      succeeded: "Done",
      failed: "Failed",
      cancelled: "Cancelled",
      expired: "Waited too long",
    },
    place: /** @param {number} place */ (place) => (place <= 1 ? "Next in the queue" : `Number ${place} in the queue`),
    noWorker: "If nothing happens for long, check that a training worker runs. This command starts one: likeness work",
    stages: {
      check: "Check the photographs",
      prepare: "Crop the photographs",
      "class images": "Make images of other people",
      train: "Learn the face",
      score: "Measure the likeness",
      publish: "Publish the adapter",
    },
    step: /** @param {number} done @param {number} total */ (done, total) => `${done} of ${total}`,
    left: /** @param {number} seconds */ (seconds) =>
      seconds < 90
        ? `about ${Math.max(1, Math.round(seconds))} s left`
        : seconds < 5400
          ? `about ${Math.round(seconds / 60)} min left`
          : `about ${Math.round(seconds / 3600)} h left`,
    loss: "Loss",
    lossLabel: /** @param {number} first @param {number} last */ (first, last) =>
      `The loss went from ${first.toFixed(3)} to ${last.toFixed(3)}`,
    previews: "Portraits during the training",
    previewAlt: /** @param {number} step */ (step) => `Portraits after ${step} steps`,
    previewCaption: /** @param {number} step */ (step) => `Step ${step}`,
    waiting: "Part of the service does not answer. The training is retried automatically.",
    notify: "Notify me when it is done",
    notified: "The browser will notify you.",
    notifyTitle: /** @param {string} name */ (name) => `The training of ${name} has ended`,
    cancel: "Cancel the training",
    cancelAsk: "Cancel this training? Its progress will be lost.",
    cancelled: "This training was cancelled. The photographs are still there: you can train on them again.",
    done: "The adapter is ready.",
    studio: "To the studio",
    photos: "To the photographs",
    again: "Train again",
  },

  studio: {
    title: "Studio",
    who: "Who",
    base: "No person: the base alone",
    prompt: "What should the picture show?",
    promptHint: "{me} stands for the person",
    suggestions: "Ideas",
    negative: "What it should not show",
    count: "How many",
    seed: "Seed",
    seedRandom: "random",
    lock: "Keep this seed",
    shape: "Shape",
    shapeOf: /** @param {{aspect: string, width: number, height: number}} one */ ({ aspect, width, height }) =>
      `${width === height ? "Square" : `${width < height ? "Portrait" : "Landscape"} ${aspect}`}, ${width} × ${height} px`,
    steps: "Steps",
    guidance: "Guidance",
    guidanceHint: "How strictly the prompt is followed",
    strength: "Strength of the person",
    make: "Make portraits",
    comparison: "Comparison",
    stop: "Stop",
    made: /** @param {number} count */ (count) => `${counted(count, "portrait")} made`,
    unread: /** @param {string} text */ (text) => `The prompt is too long for the base. It does not read: “${text}”`,
    compare: "Compare two",
    compares: { prompt: "The prompt", strength: "The strength", adapter: "The person" },
    second: { prompt: "Second prompt", strength: "Second strength", adapter: "Second person" },
    sheet: "Download as one picture",
    nobody: "There is no trained person yet. Train one first, or use the base alone.",
    placeholder: "photo of {me} in the mountains",
    placeholderBase: "photo of a woman in the mountains",
    inWork: /** @param {number} place */ (place) => `Portrait ${place}, unfinished`,
    step: /** @param {number} step @param {number} steps */ (step, steps) => `${step}/${steps}`,
    builtIn:
      "The built-in base is small, for a first try: it knows a dozen styles and places, at 128 px. Larger bases: likeness serve with LIKENESS_BASE.",
  },

  gallery: {
    title: "Gallery",
    empty: "No pictures yet.",
    all: "All",
    favourites: "Favourites",
    show: "Show",
    alt: /** @param {string} prompt @param {number | null} seed */ (prompt, seed) =>
      `${prompt || "Portrait"}, seed ${seed ?? "unknown"}`,
    select: "Select",
    selectOne: /** @param {string} what */ (what) => `Select: ${what}`,
    open: /** @param {string} what */ (what) => `Open: ${what}`,
    done: "Done",
    selected: /** @param {number} count */ (count) => `${count} selected`,
    selectAll: "All",
    range: "Up to next",
    deleteAsk: /** @param {number} count */ (count) => `Delete ${counted(count, "picture")}? This cannot be undone.`,
    deleted: /** @param {number} count */ (count) => `${counted(count, "picture")} deleted`,
    favourite: "Favourite",
    likeThis: "More like this",
    likeness: "Likeness",
    likenessOf: /** @param {{distance: number, photo_distance: number, is_same: boolean}} found */ (found) =>
      `${found.is_same ? "Recognised as this person" : "Not recognised as this person"}: distance ${found.distance.toFixed(2)}, the photographs to each other ${found.photo_distance.toFixed(2)}`,
    previous: "Previous picture",
    next: "Next picture",
    facts: {
      prompt: "Prompt",
      negative_prompt: "Should not show",
      size: "Size",
      seed: "Seed",
      steps: "Steps",
      guidance_scale: "Guidance",
      adapter_scale: "Strength",
      created: "Made",
    },
    more: "More pictures",
  },

  people: {
    title: "People",
    add: "New person",
    empty: "No people yet.",
    ready: "Ready",
    noAdapter: "Not trained",
    training: "In training",
    follow: "To the training",
    studio: "Make portraits",
    photographs: "Photographs",
    receipts: "Receipts of deletions",
    receipt: /** @param {string} name @param {string} at */ (name, at) => `${name}, ${at}`,
    unfinished: /** @param {string} name */ (name) => `The deletion of ${name} goes on in the background.`,
    backup: "Backup",
    backupLead:
      "One zip with all people, photographs, adapters, pictures and finished trainings. Keep it as safe as the photographs themselves.",
    makeBackup: "Download a backup",
    restore: "Restore a backup",
    restoring: "Restoring …",
    restored:
      /** @param {{subjects: number, photos: number, adapters: number, images: number, jobs: number}} counts */
      (counts) =>
        `Restored: ${[counted(counts.subjects, "person", "people"), counted(counts.photos, "photograph"), counted(counts.adapters, "adapter"), counted(counts.images, "picture"), counted(counts.jobs, "training")].join(", ")}.`,
    leftOut: /** @param {{name: string, reason: string, count: number}} one */ (one) =>
      `${one.count} of ${one.name} left out: ${one.reason}.`,
    restoreNote: "What exists here already is not changed.",
  },

  person: {
    trainings: "Trainings",
    recipeOf: /** @param {string} recipe */ (recipe) => `Recipe ${recipe}`,
    made: "Trained",
    steps: "Steps",
    photos: "Photographs",
    size: "Size",
    recipe: "Recipe",
    rank: "Rank",
    consent: "Consent",
    consented: "Given",
    retention: /** @param {string} date */ (date) => `The photographs of the training are deleted by ${date}.`,
    export: "Export",
    archive: "Zip with adapter and pictures",
    formats: { diffusers: "diffusers (.safetensors)", kohya: "kohya, ComfyUI (.safetensors)", peft: "PEFT (.tar.gz)" },
    delete: "Delete everything now",
    deleteAsk: /** @param {string} name */ (name) =>
      `Delete ${name}: photographs, adapter, pictures, trainings and consent? This cannot be undone.`,
    receipt: "Receipt",
    deleted: /** @param {string} name */ (name) => `Everything about ${name} is deleted`,
    unfinished: "The deletion is recorded and goes on in the background.",
    item: /** @param {{kind: string, count: number, bytes: number}} item */ (item) =>
      `${item.count} × ${item.kind}${item.bytes ? `, ${size(item.bytes)}` : ""}`,
    saveReceipt: "Save the receipt",
    noAdapter: "There is no adapter yet.",
    gone: "There is no person with this name.",
  },

  score: {
    title: "Score card",
    none: "There is no score card of this adapter.",
    similar: "Portraits as similar as the photographs are to each other",
    gained: "From the base's faces (0 %) to this person (100 %)",
    faces: "Portraits with a face",
    prompts: "Prompts recognised by the base",
    copies: "Copies of a photograph",
    ofPortraits: /** @param {number} faces @param {number} all */ (faces, all) => `${faces} of ${all}`,
    note: "Measured on portraits of eight prompts, with face descriptors. They compare faces of one adapter and do not prove an identity.",
  },

  phone: {
    title: "Open this on a phone",
    lead: "Scan this with the phone's camera. The photographs then come straight from it.",
    local: "This address only works on this machine. Start the server for your network; it then asks for an API key:",
    insecure:
      "Without https a phone can send files, but its browser does not allow the live camera. A certificate, or a proxy with TLS, allows it:",
    keys: "Create an API key, and sign in with it on the phone:",
    alt: "QR code of this address",
  },

  signIn: {
    title: "Sign in",
    lead: "This server asks for an API key. Its operator creates one with:",
    key: "API key",
    submit: "Sign in",
    missing: "Enter the key. It begins with lk_.",
    cookie: "The browser does not store the key, only a cookie that is valid for a week.",
  },

  operator: {
    title: "Operator",
    queue: "Queue",
    noJobs: "No jobs are waiting or running.",
    workers: "Workers",
    oldest: "Longest wait",
    engine: "Engine",
    disk: "Disk",
    versions: "Versions",
    keys: "Keys",
    noKeys: "No keys.",
    failures: "Last errors",
    noFailures: "None since the start.",
    tenant: "Tenant",
    name: "Name",
    state: "State",
    priority: "Priority",
    id: "Id",
    label: "Label",
    created: "Created",
    revoked: "Revoked",
    at: "At",
    route: "Route",
    status: "Status",
    request: "Request",
    first: "Move to the front",
    cancel: "Cancel",
    firstOf: /** @param {string} name */ (name) => `Move ${name} to the front`,
    cancelOf: /** @param {string} name */ (name) => `Cancel the job of ${name}`,
    free: /** @param {number} free @param {number} total */ (free, total) => `${size(free)} of ${size(total)} free`,
    jobs: /** @param {Record<string, number>} counts */ (counts) =>
      Object.entries(counts)
        .map(([state, count]) => `${count} ${state}`)
        .join(", ") || "none",
    facts: {
      waiting: "Images waiting",
      running: "Images in the batch",
      rows: "Rows in the batch",
      row_limit: "Largest batch",
      slots: "Slots",
      slots_held: "Slots in use",
      host_adapters: "Adapters in memory",
      host_bytes: "Memory for adapters, bytes",
      images: "Images made",
      refused: "Refused",
      cancelled: "Cancelled",
      row_steps_per_s: "Row steps per second",
    },
  },
  notFound: "There is no such page.",
};

/**
 * A prompt without the word that stands for the person in the base's vocabulary.
 * @param {string | null} prompt
 */
export const plain = (prompt) => (prompt || "").replace(/<<[^<>]*>> /g, "");

/** @param {number} bytes */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (bytes >= 1000 && place < units.length - 1) {
    bytes /= 1000;
    place += 1;
  }
  return `${bytes >= 10 || place === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[place]}`;
}

/** @param {string | number} time ISO 8601, or seconds since 1970 */
export const day = (time) =>
  new Date(typeof time === "number" ? time * 1000 : time).toLocaleString("en-GB", {
    dateStyle: "medium",
    timeStyle: "short",
  });
