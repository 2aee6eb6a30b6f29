namespace ModelHost.Simulator.Server;

/// <summary>Reason phrases as Python's <c>http.HTTPStatus</c> has them; they are also the <c>type</c> of some errors.</summary>
internal static class Reasons
{
    public static string Of(int status) => status switch
    {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        422 => "Unprocessable Entity",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        _ => "",
    };
}
