namespace ModelHost.Tests;

public sealed class PlaceholderTests
{
    [Fact]
    public void Solution_builds() => typeof(Program).Assembly.GetName().Name.ShouldBe("modelhost");
}
