"""The bundled model, sampling for real behind the server."""
import sdk

program = sdk.program
CLAIMS = list(sdk.claims_of("sampled.mjs", sampling=True))
