using System.Globalization;

namespace ModelHost.Tests.Gateway;

/// <summary>How long the fuzz tests go on: <c>MODELHOST_FUZZ_ROUNDS=100000000 ./test --filter Random_</c> makes a long run of them.</summary>
internal static class FuzzRounds
{
    /// <summary>Rounds of a test: as many as an ordinary run has, or as are asked for.</summary>
    public static int Of(int ordinary) =>
        int.TryParse(Environment.GetEnvironmentVariable("MODELHOST_FUZZ_ROUNDS"), CultureInfo.InvariantCulture, out var rounds) && rounds > 0 ? rounds : ordinary;
}
