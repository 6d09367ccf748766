// @ts-check
/** Prompts that the built-in base knows, each with a picture that it made of nobody in particular. */
export const SAMPLES = [
  { file: "mountains.jpg", label: "In the mountains", prompt: "photo of {me} in the mountains" },
  { file: "oil.jpg", label: "Oil painting, garden", prompt: "an oil painting of {me} in a garden with flowers" },
  { file: "space.jpg", label: "In space", prompt: "photo of {me} in space" },
  { file: "comic.jpg", label: "Comic book, sunset", prompt: "a comic book portrait of {me} at sunset" },
  { file: "beach.jpg", label: "Smiling on a beach", prompt: "photo of a smiling {me} on a beach" },
  { file: "popart.jpg", label: "Pop art", prompt: "pop art portrait of {me}" },
  { file: "library.jpg", label: "In a library", prompt: "portrait photo of {me} in a library" },
  { file: "sketch.jpg", label: "Pencil sketch", prompt: "a pencil sketch of {me}" },
  { file: "neon.jpg", label: "Neon city", prompt: "neon cyberpunk portrait of {me} in a city at night" },
  { file: "watercolor.jpg", label: "Watercolor", prompt: "a watercolor painting of {me}" },
  { file: "bronze.jpg", label: "Bronze statue", prompt: "a bronze statue of {me}" },
  { file: "marble.jpg", label: "Marble statue", prompt: "a marble statue of {me}" },
];
