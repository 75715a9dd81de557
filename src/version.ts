/** The version of Marmot; the CHANGELOG says what is in it. */
export const VERSION = "0.1.0";
