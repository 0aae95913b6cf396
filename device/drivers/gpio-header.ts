/** The highest BCM number that is on the header of a Raspberry Pi; those above serve the board itself. */
export const HEADER_HIGHEST = 27
