/** How soon a guest that is not there yet is asked again, in milliseconds: a restored one answers within 0.5 s. */
export const guestPollMs = 50;

/** The same for an engine that is starting: polling more often would slow it down. */
export const enginePollMs = 500;
