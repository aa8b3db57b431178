/** JSON as it comes from a request body. */
export type JsonObject = Readonly<Record<string, unknown>>;
