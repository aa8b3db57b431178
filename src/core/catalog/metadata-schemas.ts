const text = { type: 'string', minLength: 1, maxLength: 10_000 };
const webAddress = { type: 'string', pattern: '^https?://[^\\s]+$', maxLength: 2_048 };

/**
 * The fields of an offering's metadata that platforms show (OSB profile, "Service Metadata"). Others are passed on as
 * they are.
 */
export const offeringMetadata = {
  type: 'object',
  properties: {
    displayName: text,
    longDescription: text,
    providerDisplayName: text,
    documentationUrl: webAddress,
    supportUrl: webAddress,
    // Dashboards show it as an image: also an image in a data URL.
    imageUrl: { type: 'string', pattern: '^(https?://|data:image/)[^\\s]+$', maxLength: 65_536 },
    shareable: { type: 'boolean' },
  },
};

/** The fields of a plan's metadata that platforms show (OSB profile, "Service Plan Metadata"). */
export const planMetadata = {
  type: 'object',
  properties: {
    displayName: text,
    bullets: { type: 'array', maxItems: 100, items: text },
    costs: {
      type: 'array',
      maxItems: 100,
      items: {
        type: 'object',
        required: ['amount', 'unit'],
        additionalProperties: false,
        properties: {
          // Prices by the lower-case name of their currency, such as { usd: 99.0 }.
          amount: { type: 'object', minProperties: 1, additionalProperties: { type: 'number', minimum: 0 } },
          unit: text,
        },
      },
    },
  },
};
