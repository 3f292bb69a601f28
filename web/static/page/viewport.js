// @ts-check
/**
 * Keeps the page as high as what can be seen of it.
 *
 * On phones the keyboard covers the lower part of the page; the visual viewport tells what is left.
 * Zooming with two fingers changes it too, and must not resize the terminal.
 */

/** The scale above which somebody has zoomed. */
const ZOOMED = 1.01;

export function followVisualViewport() {
  const viewport = window.visualViewport;
  if (!viewport) return;
  const apply = () => {
    if (viewport.scale > ZOOMED) return;
    const { style } = document.documentElement;
    style.setProperty("--visible-height", `${viewport.height}px`);
    style.setProperty("--visible-top", `${viewport.offsetTop}px`);
  };
  viewport.addEventListener("resize", apply);
  viewport.addEventListener("scroll", apply);
  apply();
}
